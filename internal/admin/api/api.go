// Package api has the types of the admin protocol between the daemons and the
// postern command: the names of commands, their arguments and their answers. Both
// ends use these types, so that neither has to import the other.
//
// Keys are stable, because programs read them with --json. Keys may be added, but
// no key changes its meaning.
package api

// The daemons, and the default paths of their admin sockets.
const (
	Policyd = "postern-policyd"
	Milterd = "postern-milterd"

	PolicydSocket = "/run/postern/policyd.sock"
	MilterdSocket = "/run/postern/milterd.sock"

	PolicydConfig  = "/etc/postern/policyd.toml"
	MilterdConfig  = "/etc/postern/milterd.toml"
	DKIMKeysFolder = "/etc/postern/dkim"
)
