package api

import "encoding/json"

// Log asks a daemon for the records that it remembers. Every daemon has this
// command. They come as progress, in lines of LogLines.
const Log = "log"

// LogArgs says which records to send.
type LogArgs struct {
	// After is the number that a LogResult of the same Run gave; 0 means all that
	// are remembered.
	After uint64 `json:"after,omitempty"`
	// Run is that of the LogResult. After is ignored when it is not this one's.
	Run string `json:"run,omitempty"`
	// Wait has the daemon wait for a record, for a while, when there is none yet.
	Wait bool `json:"wait,omitempty"`
}

// LogLines are records as the log has them.
type LogLines []json.RawMessage

// LogResult ends them.
type LogResult struct {
	Run  string `json:"run"` // names the process
	Next uint64 `json:"next"`
	Lost uint64 `json:"lost,omitempty"` // records behind After that are not remembered any more
}
