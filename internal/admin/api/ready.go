package api

// Ready asks whether a daemon is ready for work; the answer is a ReadyResult.
// Both daemons have this command.
const Ready = "ready"

// ReadyResult has the answer of /readyz.
type ReadyResult struct {
	Ready  bool   `json:"ready"`
	Report string `json:"report"` // a line for each condition
}
