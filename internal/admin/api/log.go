package api

import "encoding/json"

// Log asks a daemon for the records that it remembers. Both daemons have this
// command. The records are sent as progress, in lines of LogLines.
const Log = "log"

// LogArgs selects the records to send.
type LogArgs struct {
	// After is the number in a LogResult of the same Run; 0 means all remembered
	// records.
	After uint64 `json:"after,omitempty"`
	// Run is the Run of that LogResult. After is ignored when the daemon has
	// another one.
	Run string `json:"run,omitempty"`
	// Wait asks the daemon to wait for a while when there is no record yet.
	Wait bool `json:"wait,omitempty"`
}

// LogLines are records as the log has them.
type LogLines []json.RawMessage

// LogResult is sent after the records.
type LogResult struct {
	Run  string `json:"run"` // identifies the process
	Next uint64 `json:"next"`
	Lost uint64 `json:"lost,omitempty"` // records after After that are not remembered any more
}
