package api

import "time"

// The commands about the greylist.
const (
	GreylistList   = "greylist.list"
	GreylistShow   = "greylist.show"
	GreylistAllow  = "greylist.allow"
	GreylistDelete = "greylist.delete"
	GreylistStats  = "greylist.stats"
	GreylistImport = "greylist.import"
)

// The kinds of a GreylistFilter.
const (
	GreylistTriplets = "triplets"
	GreylistClients  = "clients"
)

// GreylistFilter selects entries. A * means any text; empty means all.
type GreylistFilter struct {
	Kind      string `json:"kind,omitempty"` // triplets, clients
	Client    string `json:"client,omitempty"`
	Sender    string `json:"sender,omitempty"`
	Recipient string `json:"recipient,omitempty"`
}

// GreylistEntry is an entry in a form for people.
type GreylistEntry struct {
	Client    string     `json:"client"` // a network, spf:domain, or domain@network
	Sender    string     `json:"sender,omitempty"`
	Recipient string     `json:"recipient,omitempty"`
	State     string     `json:"state"` // waiting, passed; earning, allowed, allowed by hand; expired
	First     *time.Time `json:"first,omitempty"`
	Last      *time.Time `json:"last,omitempty"`
	Passed    *time.Time `json:"passed,omitempty"`
	Passes    int        `json:"passes,omitempty"`
}

// GreylistListArgs asks for entries ("greylist.list"). They are sent as progress,
// in lines of []GreylistEntry.
type GreylistListArgs struct {
	GreylistFilter
	Limit int `json:"limit,omitempty"` // 0: all
}

// GreylistListResult ends a list.
type GreylistListResult struct {
	Matched int  `json:"matched"` // entries that were sent
	More    bool `json:"more"`    // the limit was reached
}

// GreylistShowArgs asks what the greylist would do with a mail ("greylist.show").
type GreylistShowArgs struct {
	Client    string `json:"client"`           // IP address
	Domain    string `json:"domain,omitempty"` // that SPF authorises, "" for none
	Pool      string `json:"pool,omitempty"`   // organizational domain of the client's name, when SPF admits too many
	Sender    string `json:"sender"`           // "" or <> is the null sender
	Recipient string `json:"recipient"`
}

// GreylistShowResult has the entries of the store, and the verdict that follows.
type GreylistShowResult struct {
	Key     string          `json:"key"`     // the client part
	Sender  string          `json:"sender"`  // as it is in the key
	Verdict string          `json:"verdict"` // pass, defer
	Reason  string          `json:"reason"`
	Wait    int             `json:"wait_seconds,omitempty"`
	Entries []GreylistEntry `json:"entries"`
}

// GreylistAllowArgs names a client that is never delayed ("greylist.allow").
type GreylistAllowArgs struct {
	Client string `json:"client"` // IP address or network, with domain@ in front for one SPF domain there
}

// GreylistAllowResult is the client as the store has it.
type GreylistAllowResult struct {
	Client string `json:"client"`
}

// GreylistDeleteArgs selects entries to delete ("greylist.delete").
type GreylistDeleteArgs struct {
	GreylistFilter
	All bool `json:"all,omitempty"` // needed when the filter is empty
}

// GreylistDeleteResult has the number of deleted entries.
type GreylistDeleteResult struct {
	Deleted int `json:"deleted"`
}

// GreylistStatsResult counts entries by state ("greylist.stats").
type GreylistStatsResult struct {
	Store    string         `json:"store"` // its kind
	Down     string         `json:"down,omitempty"`
	Unsaved  bool           `json:"unsaved,omitempty"` // it answers, and keeps nothing new: it is full, or its file cannot be written
	Triplets map[string]int `json:"triplets"`          // waiting, passed, expired
	Clients  map[string]int `json:"clients"`           // earning, allowed, allowed by hand, expired
}

// GreylistImportArgs has entries of another program ("greylist.import").
type GreylistImportArgs struct {
	Entries []ImportedEntry `json:"entries"`
}

// ImportedEntry is an entry of another program. Times are in milliseconds since 1970.
type ImportedEntry struct {
	Client    string `json:"client"` // IP address, of a host or of a network
	Sender    string `json:"sender,omitempty"`
	Domain    string `json:"domain,omitempty"` // of a client that is only allowed for one sender domain
	Recipient string `json:"recipient,omitempty"`
	First     int64  `json:"first,omitempty"`
	Last      int64  `json:"last"`
	Passed    bool   `json:"passed,omitempty"`
	Passes    int    `json:"passes,omitempty"`
}

// MaxImportWhy bounds GreylistImportResult.Why.
const MaxImportWhy = 10

// GreylistImportResult counts imported and skipped entries.
type GreylistImportResult struct {
	Imported int      `json:"imported"`
	Skipped  int      `json:"skipped"`
	Why      []string `json:"why,omitempty"` // of the first that were skipped
}
