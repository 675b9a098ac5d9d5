package api

// Config asks for the settings of a daemon; the answer is a ConfigResult. Both
// daemons have this command.
const Config = "config"

// ConfigResult has the settings of a daemon.
type ConfigResult struct {
	Settings []Setting `json:"settings"`
	// Refused is why the last reload was refused, or why a reload would be
	// refused now; "" for neither.
	Refused string `json:"refused,omitempty"`
}

// Setting is one setting in force, with its value as written in a file.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"` // without secrets
	Origin string `json:"origin"`
	// Pending is the value that is configured and not in force; "" for none.
	Pending       string `json:"pending,omitempty"`
	PendingOrigin string `json:"pending_origin,omitempty"`
	Restart       bool   `json:"restart,omitempty"` // Pending needs a restart; else a reload
}
