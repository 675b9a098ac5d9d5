package api

import "time"

// The commands about DMARC reports to other domains.
const (
	DMARCReportList    = "dmarc.report.list"
	DMARCReportPreview = "dmarc.report.preview"
	DMARCReportSend    = "dmarc.report.send"
	DMARCReportBounce  = "dmarc.report.bounce"
)

// DMARCReportArgs select reports.
type DMARCReportArgs struct {
	Domain string `json:"domain,omitempty"` // Policy Domain; "" for all
	Day    string `json:"day,omitempty"`    // UTC, as 2026-11-25; "" for all
	Again  bool   `json:"again,omitempty"`  // of send: also reports that wait for a time or were given up
	// After is where the previous command has stopped, because a command may run
	// for a minute only.
	After *DMARCReportPlace `json:"after,omitempty"`
}

// DMARCReportPlace is the place of a report in the order of all.
type DMARCReportPlace struct {
	Day    int32  `json:"day"` // since 1970
	Domain string `json:"domain"`
}

// DMARCReport is one report, in the answers to "dmarc.report.list" and
// "dmarc.report.preview".
type DMARCReport struct {
	Day      string `json:"day"`
	Since    string `json:"since,omitempty"` // the first day, if it holds late messages of earlier days
	Domain   string `json:"domain"`
	Messages int64  `json:"messages"`
	Rows     int64  `json:"rows"`
	File     string `json:"file"`
	// State is open (the day is not over), due, waiting, done or none.
	State      string                `json:"state"`
	Why        string                `json:"why,omitempty"` // of none
	Deliveries []DMARCReportDelivery `json:"deliveries"`
	Refused    []string              `json:"refused,omitempty"` // of preview: addresses that get none, and why
}

// DMARCReportDelivery is a report to one address.
type DMARCReportDelivery struct {
	To    string     `json:"to"`
	State string     `json:"state"` // waiting, sent, failed, dead, too_large, bounced
	Tries int        `json:"tries"`
	Next  *time.Time `json:"next,omitempty"` // try
	Error string     `json:"error,omitempty"`
}

// DMARCReportDead is an address that gets no reports for a while.
type DMARCReportDead struct {
	Address string    `json:"address"`
	Bounces int       `json:"bounces"`
	Until   time.Time `json:"until"`
	Why     string    `json:"why"`
}

// DMARCReportListResult is the answer to "dmarc.report.list". The reports are
// sent before it, one at a time.
type DMARCReportListResult struct {
	Reports int               `json:"reports"`
	Dead    []DMARCReportDead `json:"dead"`
	Missing []string          `json:"missing,omitempty"` // settings without which nothing is sent
	DMARCReportRest
}

// DMARCReportRest means that there are more reports: the next command goes on
// after this place.
type DMARCReportRest struct {
	After *DMARCReportPlace `json:"after,omitempty"`
}

// DMARCReportFile is a piece of a report's file. The pieces are sent before the
// answer to "dmarc.report.preview".
type DMARCReportFile struct {
	Report *DMARCReport `json:"report,omitempty"` // of the first piece
	Data   []byte       `json:"data,omitempty"`
}

// DMARCReportEvent is the outcome for one report. The events are sent before the
// answer to "dmarc.report.send".
type DMARCReportEvent struct {
	Day    string `json:"day"`
	Domain string `json:"domain"`
	File   string `json:"file"`
	To     string `json:"to,omitempty"`
	State  string `json:"state"`
	Error  string `json:"error,omitempty"`
}

// DMARCReportDone is the answer to "dmarc.report.preview" and "dmarc.report.send".
type DMARCReportDone struct {
	Reports int `json:"reports"`
	Failed  int `json:"failed,omitempty"` // of send: those that wait for another try
	DMARCReportRest
}

// DMARCReportBounceArgs have a bounce of a report ("dmarc.report.bounce").
type DMARCReportBounceArgs struct {
	Token  string `json:"token"`
	Failed bool   `json:"failed"`
	Why    string `json:"why"`
}

// DMARCReportBounced is the answer to "dmarc.report.bounce".
type DMARCReportBounced struct {
	Address string `json:"address"`
}
