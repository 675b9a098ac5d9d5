package api

import "time"

// The commands about limits.
const (
	LimitsList    = "limits.list"
	LimitsShow    = "limits.show"
	LimitsReset   = "limits.reset"
	LimitsBlock   = "limits.block"
	LimitsUnblock = "limits.unblock"
	LimitsSuggest = "limits.suggest"
)

// LimitUse is how much of a limit is used.
type LimitUse struct {
	Limit    string     `json:"limit"` // as login.recipients=300/1h
	Key      string     `json:"key"`
	Unit     string     `json:"unit"`
	Value    string     `json:"value"` // of the key
	Used     int64      `json:"used"`
	Reserved int64      `json:"reserved,omitempty"` // part of Used: for mails that have not ended yet
	Count    int64      `json:"count"`
	Percent  int        `json:"percent"`
	Window   int        `json:"window_s"`
	Wait     int        `json:"wait_s,omitempty"` // until the first part of it is no longer counted
	Action   string     `json:"action"`
	Peak     int64      `json:"peak,omitempty"` // the highest remembered value
	Last     *time.Time `json:"last,omitempty"`
}

// LimitBlock is a login whose mail is refused.
type LimitBlock struct {
	Login string     `json:"login"`
	Since time.Time  `json:"since"`
	Until *time.Time `json:"until,omitempty"` // absent: until it is lifted
}

// LimitsListArgs asks for the keys that have used most of their limits
// ("limits.list").
type LimitsListArgs struct {
	Key   string `json:"key,omitempty"`   // only this key, as login
	Limit int    `json:"limit,omitempty"` // 0: 20
}

// LimitsListResult has the keys with the greatest share first.
type LimitsListResult struct {
	Store  string       `json:"store"`
	Down   string       `json:"down,omitempty"` // why the store does not answer mail
	Uses   []LimitUse   `json:"uses"`
	Blocks []LimitBlock `json:"blocks"`
	More   int          `json:"more"` // counters that are not listed
	// Unsaved: the file cannot be written, and what is new is in memory only.
	Unsaved bool `json:"unsaved,omitempty"`
	// Unknown is why an override could not be looked up. The general limits are listed then.
	Unknown string `json:"overrides_unknown,omitempty"`
	// Unasked: Postfix asks about mail of users, and not for their limits.
	Unasked bool `json:"unasked,omitempty"`
}

// LimitsOfArgs names a login, or the value of another key ("limits.show", "limits.reset").
type LimitsOfArgs struct {
	Value string `json:"value"`
	Key   string `json:"key,omitempty"` // "" means login
}

// LimitsShowResult is everything about a login.
type LimitsShowResult struct {
	Key      string         `json:"key"`
	Value    string         `json:"value"` // in its one form
	Uses     []LimitUse     `json:"uses"`
	Block    *LimitBlock    `json:"block,omitempty"`
	Override *LimitOverride `json:"override,omitempty"`
	Networks []string       `json:"networks"` // of its clients, the latest last
	Domains  []string       `json:"recipient_domains"`
	Shadow   bool           `json:"shadow,omitempty"`            // the check is only watched
	Unknown  string         `json:"overrides_unknown,omitempty"` // as in LimitsListResult
}

// LimitOverride is the entry of a table for a login.
type LimitOverride struct {
	Table string `json:"table"`
	Key   string `json:"key"` // that was found
	Entry string `json:"entry"`
	Where string `json:"where,omitempty"`
	Error string `json:"error,omitempty"` // why it is not used
}

// LimitsResetResult has the number of counters that were reset.
type LimitsResetResult struct {
	Value   string `json:"value"`
	Reset   int    `json:"reset"`
	Unsaved bool   `json:"unsaved,omitempty"` // as in LimitsListResult
}

// LimitsBlockArgs names a login ("limits.block", "limits.unblock").
type LimitsBlockArgs struct {
	Login    string `json:"login"`
	Duration string `json:"duration,omitempty"` // of a block, as 12h or 7d; "": until it is lifted
}

// LimitsBlockResult is the block that was made or lifted.
type LimitsBlockResult struct {
	LimitBlock
	Was    bool `json:"was"`    // it was blocked before
	Shadow bool `json:"shadow"` // the limit check is only watched: nothing is refused
}

// LimitsSuggestArgs asks for limits that would have affected few logins
// ("limits.suggest").
type LimitsSuggestArgs struct {
	Touch int `json:"touch"` // at most so many logins
}

// LimitSuggestion is a limit that is computed from the counters.
type LimitSuggestion struct {
	Limit   string `json:"limit"`   // suggested
	Now     string `json:"now"`     // in force
	Logins  int    `json:"logins"`  // that have sent
	Touched int    `json:"touched"` // of them, by the suggested one
	Most    int64  `json:"most"`    // that one login has used
}

// LimitsSuggestResult has a suggestion for each limit of logins.
type LimitsSuggestResult struct {
	Suggestions []LimitSuggestion `json:"suggestions"`
}
