package api

// PolicyExplain asks postern-policyd what it would answer to Postfix. The answer
// is a PolicyExplanation. The question changes nothing in the daemon.
const PolicyExplain = "policy.explain"

// PolicyExplainArgs is a request of Postfix.
type PolicyExplainArgs struct {
	Attributes []Attribute `json:"attributes"`
}

// Attribute is an attribute of a request, with its name from SMTPD_POLICY_README.
type Attribute struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// PolicyExplanation is what postern-policyd would answer.
type PolicyExplanation struct {
	Context string         `json:"policy_context,omitempty"` // "" is all checks
	Verdict string         `json:"verdict"`
	Check   string         `json:"check,omitempty"`
	Reason  string         `json:"reason"`
	Mode    string         `json:"mode"`
	Action  string         `json:"action"`
	Error   string         `json:"error,omitempty"`
	Steps   []PolicyStep   `json:"steps"`
	Unasked []string       `json:"not_asked,omitempty"` // checks after the one that decided
	Advice  []PolicyAdvice `json:"advice,omitempty"`
	Notes   []string       `json:"notes,omitempty"`
}

// PolicyStep is the result of one check.
type PolicyStep struct {
	Check   string  `json:"check"`
	Verdict string  `json:"verdict"`
	Reason  string  `json:"reason"`
	Mode    string  `json:"mode"`
	Detail  string  `json:"detail,omitempty"`
	Error   string  `json:"error,omitempty"`
	OnError string  `json:"on_error,omitempty"` // the rule that applies to the error
	Decides bool    `json:"decides,omitempty"`
	Millis  float64 `json:"ms"`
}

// PolicyAdvice is what would let a request pass a check.
type PolicyAdvice struct {
	Check string `json:"check"`
	Text  string `json:"text"`
}
