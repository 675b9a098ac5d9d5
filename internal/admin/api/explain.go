package api

import "time"

// Where the time of an Explanation comes from.
const (
	AtFlag     = "flag"
	AtReceived = "received"
	AtNow      = "now"
)

// Explanation is how the daemon would verify a message.
type Explanation struct {
	At         time.Time        `json:"at"` // when signatures were judged; DNS is asked now
	AtFrom     string           `json:"at_from"`
	Questions  []Question       `json:"questions"` // in the order in which they were answered
	SPF        []ExplainedSPF   `json:"spf"`
	Signatures []ExplainedDKIM  `json:"dkim"`
	SkippedSig int              `json:"dkim_not_looked_at,omitempty"`
	IPRev      string           `json:"iprev,omitempty"`
	ARC        *ExplainedARC    `json:"arc,omitempty"` // nil without a chain
	DMARC      *ExplainedDMARC  `json:"dmarc,omitempty"`
	From       string           `json:"from"`
	Removed    []string         `json:"removed,omitempty"` // forged fields, as "Name[index]"
	Held       string           `json:"held,omitempty"`    // the reason, when the message would be put on hold
	Notes      []string         `json:"notes,omitempty"`   // differences from the running daemon
	Refused    string           `json:"refused,omitempty"` // the reply, when the message would be refused
	Added      []ExplainedField `json:"added"`
	Whose      string           `json:"whose"` // the row of the table of whose mail that applies without a login
	Reason     string           `json:"reason"`
	Error      string           `json:"error,omitempty"`
}

// Question is one question to the DNS, with its outcome.
type Question struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Answers []string `json:"answers,omitempty"` // empty: there is no record, unless Error is set
	Error   string   `json:"error,omitempty"`
	Millis  float64  `json:"ms"`
}

// ExplainedSPF is the check of one identity of SPF.
type ExplainedSPF struct {
	Identity    string   `json:"identity"` // mailfrom or helo
	Domain      string   `json:"domain,omitempty"`
	Result      string   `json:"result"`
	Mechanism   string   `json:"mechanism,omitempty"`
	Network     string   `json:"network,omitempty"`
	Path        []string `json:"path,omitempty"`
	Explanation string   `json:"explanation,omitempty"`
	Lookups     int      `json:"lookups"`
	Voids       int      `json:"voids"`
	Error       string   `json:"error,omitempty"`
	Steps       []string `json:"steps,omitempty"` // records and terms, indented by includes
}

// ExplainedDKIM is one signature.
type ExplainedDKIM struct {
	Result    string   `json:"result"`
	Reason    string   `json:"reason,omitempty"`
	Domain    string   `json:"d,omitempty"`
	Selector  string   `json:"s,omitempty"`
	Identity  string   `json:"i,omitempty"`
	Algorithm string   `json:"a,omitempty"`
	KeyBits   int      `json:"key_bits,omitempty"`
	Signed    []string `json:"h,omitempty"`
	Error     string   `json:"error,omitempty"`
}

// ExplainedField is a header field that would be added.
type ExplainedField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ExplainedARC is the chain of seals.
type ExplainedARC struct {
	Result     string   `json:"result"`
	Reason     string   `json:"reason,omitempty"`
	Sealers    []string `json:"sealers,omitempty"` // of set 1 first
	OldestPass int      `json:"oldest_pass"`
	Error      string   `json:"error,omitempty"`
}

// ExplainedDMARC is the verdict on the author, and what follows.
type ExplainedDMARC struct {
	Result  string            `json:"result"` // that counts: the strictest
	Reason  string            `json:"reason"`
	Domains []ExplainedDomain `json:"domains"`

	Signals   []string `json:"signals,omitempty"` // of forgery
	Unknown   []string `json:"unknown,omitempty"` // signals that are unknown because DNS failed
	Traits    []string `json:"traits,omitempty"`  // fields of a list or a forwarder
	Allowed   string   `json:"allowed,omitempty"`
	Forwarder bool     `json:"trusted_forwarder,omitempty"`
	Sealer    string   `json:"trusted_sealer,omitempty"`

	Rule        string `json:"rule"` // the row of the table of dispositions
	Disposition string `json:"disposition"`
	Quarantine  string `json:"quarantine,omitempty"` // what it means here
	Shadow      bool   `json:"shadow,omitempty"`     // judged, and not done
	Override    string `json:"override,omitempty"`
}

// ExplainedDomain is the verdict on one author domain.
type ExplainedDomain struct {
	Domain       string          `json:"domain"`
	Result       string          `json:"result"`
	Reason       string          `json:"reason"`
	Policy       string          `json:"policy,omitempty"`
	Published    string          `json:"published,omitempty"` // the policy before t and pct
	PolicyDomain string          `json:"policy_domain,omitempty"`
	NonExistent  bool            `json:"non_existent,omitempty"`
	BrokenTags   []string        `json:"broken_tags,omitempty"`
	Org          string          `json:"organization,omitempty"`
	Identifiers  []string        `json:"identifiers,omitempty"`
	Walks        []ExplainedWalk `json:"walks,omitempty"`
	PSLDiffers   bool            `json:"public_suffix_list_differs,omitempty"`
	PSLOrg       string          `json:"public_suffix_list_organization,omitempty"`
	Error        string          `json:"error,omitempty"`
}

// ExplainedWalk is one walk up the DNS tree.
type ExplainedWalk struct {
	Start string   `json:"start"`
	Steps []string `json:"steps"`
	Org   string   `json:"organization,omitempty"`
}

// WhoseExplained is the table that decides whose mail a message is.
type WhoseExplained struct {
	Sockets []string   `json:"sockets"` // the listeners, as flags
	Rows    []WhoseRow `json:"rows"`
	Own     []WhoseRow `json:"own"`               // our own mail that is not signed
	Applies string     `json:"applies,omitempty"` // the row that applies
}

// WhoseRow is one row of it.
type WhoseRow struct {
	Whose string `json:"whose"`
	When  string `json:"when"`
	Set   string `json:"set,omitempty"`  // as set
	Role  string `json:"role,omitempty"` // sign or verify
}
