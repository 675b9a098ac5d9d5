// Package api is what the daemons and the postern command say to each other over
// the admin sockets: the names of commands, their arguments and their answers. Both
// ends use these types, so that neither knows the other.
//
// Keys are stable: programs read them with --json. A key is added; none changes its
// meaning.
package api

// The daemons, and where they are found unless they are told otherwise.
const (
	Policyd = "postern-policyd"
	Milterd = "postern-milterd"

	PolicydSocket = "/run/postern/policyd.sock"
	MilterdSocket = "/run/postern/milterd.sock"

	PolicydConfig  = "/etc/postern/policyd.toml"
	MilterdConfig  = "/etc/postern/milterd.toml"
	DKIMKeysFolder = "/etc/postern/dkim"
)
