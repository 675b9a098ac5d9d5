package api

// Ready asks whether a daemon may be sent work; the answer is a ReadyResult. Every
// daemon has this command.
const Ready = "ready"

// ReadyResult is what /readyz says.
type ReadyResult struct {
	Ready  bool   `json:"ready"`
	Report string `json:"report"` // a line for each condition
}
