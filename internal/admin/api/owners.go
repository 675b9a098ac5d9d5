package api

// The commands about owners of senders.
const (
	OwnersCheck = "owners.check"
	OwnersList  = "owners.list"
	// OwnersHeader is a command of postern-milterd.
	OwnersHeader = "owners.header"
)

// OwnersHeaderArgs asks whether a login may send a mail with certain fields
// ("owners.header").
type OwnersHeaderArgs struct {
	Login  string           `json:"login"`
	Sender string           `json:"sender"` // of the envelope
	Fields []ExplainedField `json:"fields"` // From, Sender and the like, in their order
}

// OwnersHeaderResult is the verdict of the running daemon, with its reason.
type OwnersHeaderResult struct {
	Allowed bool     `json:"allowed"`
	Reason  string   `json:"reason"`
	Reply   string   `json:"reply,omitempty"`   // what the client would read
	Field   string   `json:"field,omitempty"`   // that decided
	Address string   `json:"address,omitempty"` // likewise
	Map     string   `json:"map,omitempty"`
	Key     string   `json:"key,omitempty"`
	Where   string   `json:"where,omitempty"` // path:line
	Via     []string `json:"via,omitempty"`
	Owners  []string `json:"owners,omitempty"`
	Display []string `json:"display,omitempty"` // addresses of others in display names
	Problem string   `json:"problem,omitempty"` // of an exemption
	Shadow  bool     `json:"shadow,omitempty"`  // the check only watches
}

// OwnersCheckArgs asks whether a login may use a sender ("owners.check").
type OwnersCheckArgs struct {
	Sender string `json:"sender"` // in external form, as in MAIL FROM
	Login  string `json:"login"`
}

// OwnersCheckResult is the verdict of the running daemon, with the entry that
// decided.
type OwnersCheckResult struct {
	Allowed bool     `json:"allowed"`
	Verdict string   `json:"verdict"` // as in the record
	Reason  string   `json:"reason"`
	Reply   string   `json:"reply,omitempty"`  // what the client would read
	Queued  string   `json:"queued,omitempty"` // the sender as Postfix will queue it, if that differs
	Map     string   `json:"map,omitempty"`
	Key     string   `json:"key,omitempty"`
	Entry   string   `json:"entry,omitempty"`
	Where   string   `json:"where,omitempty"` // path:line
	Via     []string `json:"via,omitempty"`   // aliases between the sender and Key
	Owners  []string `json:"owners,omitempty"`
	Shadow  bool     `json:"shadow,omitempty"` // the check only watches
}

// OwnersListArgs asks what a login owns ("owners.list").
type OwnersListArgs struct {
	Login string `json:"login"`
	// Senders are looked up one by one, for tables that cannot be listed.
	Senders []string `json:"senders,omitempty"`
}

// OwnersListResult is what a login owns.
type OwnersListResult struct {
	Entries []OwnersListEntry `json:"entries"`
	// Unread are tables that cannot be listed, only looked up for one sender at a
	// time.
	Unread    []string `json:"unread,omitempty"`
	Truncated bool     `json:"truncated,omitempty"`
}

// OwnersListEntry is a sender, a domain ("@domain") or a bare user.
type OwnersListEntry struct {
	Sender string   `json:"sender"`
	How    string   `json:"how"`
	Map    string   `json:"map,omitempty"`
	Entry  string   `json:"entry,omitempty"`
	Where  string   `json:"where,omitempty"` // path:line
	Via    []string `json:"via,omitempty"`   // aliases from the sender to the login
}
