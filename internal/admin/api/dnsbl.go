package api

import "time"

// The commands about DNS lists.
const (
	DNSBLCheck    = "dnsbl.check"
	DNSBLSelfTest = "dnsbl.selftest"
)

// DNSBLCheckArgs asks for the answers of the lists about an address or a name
// ("dnsbl.check").
type DNSBLCheckArgs struct {
	Subject string `json:"subject"`
}

// DNSBLZone is the answer of one list, or its state.
type DNSBLZone struct {
	Zone    string      `json:"zone"`
	Kind    string      `json:"kind"`
	State   string      `json:"state"` // "in service", or the problem that opened the breaker
	Cause   string      `json:"cause,omitempty"`
	Fix     string      `json:"fix,omitempty"`
	Since   *time.Time  `json:"since,omitempty"`
	Unused  bool        `json:"unused,omitempty"` // out of service: the daemon does not ask it, and it adds nothing
	Listed  bool        `json:"listed"`
	Codes   []DNSBLCode `json:"codes,omitempty"`
	Weight  int         `json:"weight"`            // what it adds to the score
	Counted bool        `json:"counted,omitempty"` // it counts, by a filter or by the list's meaning
	Text    string      `json:"text,omitempty"`
	Error   string      `json:"error,omitempty"` // the list did not answer
	Millis  float64     `json:"latency_ms"`
}

// DNSBLCode is one answer of a list with its meaning.
type DNSBLCode struct {
	Code    string `json:"code"`
	Meaning string `json:"meaning"`
	Class   string `json:"class"` // listed, allowed, abused, fresh, other, refused
}

// DNSBLCheckResult has the answers of all lists of the subject's kind, and the
// verdict on a mail for which nothing else is listed.
type DNSBLCheckResult struct {
	Subject   string      `json:"subject"` // as it was asked: A-labels, lower case
	Asked     bool        `json:"asked"`   // false: no list can know it
	Score     int         `json:"score"`
	Threshold int         `json:"threshold"`
	Refused   bool        `json:"refused"`
	Verdict   string      `json:"verdict"` // refused, not refused, deferred, not asked
	Why       string      `json:"why,omitempty"`
	Zones     []DNSBLZone `json:"zones"`
}

// The verdicts of DNSBLCheckResult.
const (
	DNSBLRefused    = "refused"
	DNSBLNotRefused = "not refused"
	DNSBLDeferred   = "deferred"
	DNSBLNotAsked   = "not asked" // no list can know the subject
)

// DNSBLTest is the self-test of one list.
type DNSBLTest struct {
	DNSBLZone
	Off    bool         `json:"off,omitempty"` // dnsbl-selftest says not to test it
	Points []DNSBLPoint `json:"points"`
}

// DNSBLPoint is one question of a self-test.
type DNSBLPoint struct {
	Subject  string      `json:"subject"`
	Want     string      `json:"want"`     // listed, not listed
	Optional bool        `json:"optional"` // it may be missing: no IPv6, one of several test names
	Codes    []DNSBLCode `json:"codes,omitempty"`
	Error    string      `json:"error,omitempty"`
	OK       bool        `json:"ok"`
	Millis   float64     `json:"latency_ms"`
}

// DNSBLSelfTestResult is the outcome of "dnsbl.selftest".
type DNSBLSelfTestResult struct {
	Healthy bool        `json:"healthy"` // all lists are in service
	Zones   []DNSBLTest `json:"zones"`
}
