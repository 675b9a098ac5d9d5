package api

// Config asks what a daemon is set to; the answer is a ConfigResult. Every daemon
// has this command.
const Config = "config"

// ConfigResult is what a daemon runs with.
type ConfigResult struct {
	Settings []Setting `json:"settings"`
	// Refused says why the last reload left the old settings in force, or why a
	// reload now would; "" when neither is so.
	Refused string `json:"refused,omitempty"`
}

// Setting is one setting in force, its value as the file would spell it.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"` // without secrets
	Origin string `json:"origin"`
	// Pending is the value that is configured and not in force; "" for none.
	Pending       string `json:"pending,omitempty"`
	PendingOrigin string `json:"pending_origin,omitempty"`
	Restart       bool   `json:"restart,omitempty"` // Pending needs a restart; else a reload
}
