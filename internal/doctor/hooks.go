package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// Hook is a check_policy_service in a restriction list of a service.
type Hook struct {
	Service  *Service
	List     string
	Endpoint string   // as Postfix spells it
	Context  []string // the words of policy_context
	Broken   string   // attributes without a meaning, such as the rest of a list without braces
	Ignored  string   // an attribute that Postfix does not know
	Default  string   // default_action; "" for Postfix's default
	Timeout  string   // of its own; "" for the service's
	Before   []string // the restrictions before it
}

// Milter is an entry of a milter list.
type Milter struct {
	Endpoint string
	Default  string // its own default_action
	// Timeouts are its own: command_timeout, content_timeout.
	Timeouts map[string]string
	Ignored  string // an attribute that Postfix does not know
}

// The attributes that Postfix knows (SMTPD_POLICY_README, MILTER_README). It ignores others
// with a warning in its log.
var (
	policyAttributes = []string{"default_action", "max_idle", "max_ttl", "policy_context", "request_limit", "retry_delay", "timeout", "try_limit"}
	milterAttributes = []string{"command_timeout", "connect_timeout", "content_timeout", "default_action", "protocol"}
)

// restrictionLists are the lists in which Postfix may ask a policy service, in the
// order in which they are evaluated.
var restrictionLists = []string{
	"smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions", "smtpd_relay_restrictions",
	"smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions", "smtpd_etrn_restrictions",
}

// hooks returns all hooks of a service, in order.
func (s *Service) hooks() []Hook {
	var found []Hook
	for _, list := range restrictionLists {
		var before []string
		found = s.walk(found, list, s.Value(list), &before, nil)
	}
	return found
}

// throughTables returns the hooks of the restriction classes that a table may return, if
// a list of s asks any table.
func (s *Service) throughTables() []Hook {
	if !slices.ContainsFunc(restrictionLists, func(list string) bool {
		return slices.ContainsFunc(postconf.Split(s.Value(list)), func(word string) bool {
			return strings.HasPrefix(strings.ToLower(word), "check_") && strings.HasSuffix(strings.ToLower(word), "_access")
		})
	}) {
		return nil
	}
	var found []Hook
	for _, class := range postconf.Split(s.Value("smtpd_restriction_classes")) {
		found = s.walk(found, class, s.Value(class), new([]string), nil)
	}
	return found
}

// restrictions returns the restrictions of a list in small letters, those of restriction
// classes too. Most arguments are left out.
func (s *Service) restrictions(list string) (words []string) {
	s.walk(nil, list, s.Value(list), &words, nil)
	return words
}

// walk appends the hooks in the text of a list to found. open are the answers of static
// tables around the text, so that a class that its own table returns ends the recursion.
func (s *Service) walk(found []Hook, list, text string, before *[]string, open []string) []Hook {
	words := postconf.Split(postconf.Inline(text, s.Value))
	for i := 0; i < len(words); i++ {
		word := strings.ToLower(words[i]) // Postfix ignores the case too
		switch {
		case word == "check_policy_service" && i+1 < len(words):
			i++
			h := parseHook(words[i])
			h.Service, h.List, h.Before = s, list, slices.Clone(*before)
			if h.Default == "" {
				h.Default = s.Value("smtpd_policy_service_default_action")
			}
			found = append(found, h)
		case strings.HasSuffix(word, "_access") && i+1 < len(words) && strings.HasPrefix(words[i+1], "static:"):
			// A static table: it gives everyone the same answer, which may be a class.
			i++
			reached := before
			if word == "check_sasl_access" || word == "check_ccert_access" { // or only who logs in
				reached = new(slices.Clone(*before))
			}
			if answer := unbraced(strings.TrimPrefix(words[i], "static:")); !slices.Contains(open, answer) {
				found = s.walk(found, list, answer, reached, append(slices.Clone(open), answer))
			}
		}
		*before = append(*before, word)
	}
	return found
}

// parseHook parses the arguments of check_policy_service.
func parseHook(text string) Hook {
	var h Hook
	for i, word := range postconf.Split(unbraced(text)) {
		if i == 0 {
			h.Endpoint = word
			continue
		}
		name, value, ok := strings.Cut(unbraced(word), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !ok:
			h.Broken = word
		case !slices.Contains(policyAttributes, name):
			h.Ignored = name
		case name == "policy_context":
			h.Context = strings.FieldsFunc(strings.ToLower(value), isSeparator)
		case name == "default_action":
			h.Default = value
		case name == "timeout":
			h.Timeout = value
		}
	}
	return h
}

// milters parses a list of milters.
func milters(text, defaultAction string) []Milter {
	var found []Milter
	for _, entry := range postconf.Split(text) {
		m := Milter{Default: defaultAction, Timeouts: make(map[string]string)}
		for i, word := range postconf.Split(unbraced(entry)) {
			name, value, _ := strings.Cut(unbraced(word), "=")
			name, value = strings.TrimSpace(name), strings.TrimSpace(value)
			switch {
			case i == 0:
				m.Endpoint = word
			case !slices.Contains(milterAttributes, name):
				m.Ignored = name
			case name == "default_action":
				m.Default = value
			case strings.HasSuffix(name, "_timeout"):
				m.Timeouts[name] = value
			}
		}
		found = append(found, m)
	}
	return found
}

// milters returns the milters that a service sends mail to.
func (s *Service) milters() []Milter {
	if noMilters(s) {
		return nil
	}
	return milters(s.Value("smtpd_milters"), s.Value("milter_default_action"))
}

func noMilters(s *Service) bool {
	return hasWord(s, "receive_override_options", "no_milters")
}

// localMilters returns the milters for mail that does not come over SMTP.
func (p *Postfix) localMilters() []Milter {
	return milters(p.localValue("non_smtpd_milters"), p.localValue("milter_default_action"))
}

// localValue returns the value of a parameter for mail that does not come over SMTP.
func (p *Postfix) localValue(name string) string {
	if s := p.localCleanup(); s != nil {
		return s.Value(name)
	}
	return p.Params[name]
}

// ofLocalCleanup returns " at" and the service that gives such mail milters of its own, or
// "" if main.cf does.
func (p *Postfix) ofLocalCleanup() string {
	if s := p.localCleanup(); s != nil && s.overrides("non_smtpd_milters") {
		return fmt.Sprintf(" at %s", s)
	}
	return ""
}

func isSeparator(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' }

// isBalanced reports whether every brace of a list is closed.
func isBalanced(text string) bool {
	depth := 0
	for _, r := range text {
		switch {
		case r == '{':
			depth++
		case r == '}' && depth == 0:
			return false
		case r == '}':
			depth--
		}
	}
	return depth == 0
}

// unbraced removes one pair of braces. The closing one may be missing.
func unbraced(text string) string {
	inner, opened := strings.CutPrefix(text, "{")
	if !opened {
		return text
	}
	return strings.TrimSpace(strings.TrimSuffix(inner, "}"))
}
