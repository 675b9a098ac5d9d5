package status

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/record"
)

// Bounds of a filter.
const (
	maxFilter = 256 // octets of one value
	maxTerms  = 8
)

// filter picks records.
type filter struct {
	check, verdict, reason string
	terms                  []term // all must match
}

// term is a text that a record must contain, in the value of key or in any value.
type term struct{ key, text string }

// parseFilter parses the filter of a request. check, verdict and reason must be
// equal to those of the record. q is a list of words; the record must contain all
// of them. A word may be in any value, or as key=word in the value of that key.
func parseFilter(q url.Values) (filter, error) {
	for _, name := range []string{"check", "verdict", "reason", "q"} {
		if len(q.Get(name)) > maxFilter {
			return filter{}, fmt.Errorf("%s is longer than %d octets", name, maxFilter)
		}
	}
	f := filter{check: q.Get("check"), verdict: q.Get("verdict"), reason: q.Get("reason")}
	text := strings.ToLower(q.Get("q"))
	if len(text) > maxFilter { // it has grown, and a peer would refuse it
		return filter{}, fmt.Errorf("q is longer than %d octets in lower case", maxFilter)
	}
	words := strings.Fields(text)
	if len(words) > maxTerms {
		return filter{}, fmt.Errorf("q has more than %d words", maxTerms)
	}
	for _, word := range words {
		key, text, found := strings.Cut(word, "=")
		if !found || !slices.Contains(keys(), key) {
			key, text = "", word
		}
		f.terms = append(f.terms, term{key, text})
	}
	return f, nil
}

// query returns the query that asks a peer for the same records.
func (f filter) query() url.Values {
	var words []string
	for _, t := range f.terms {
		word := t.text
		if t.key != "" {
			word = t.key + "=" + t.text
		}
		words = append(words, word)
	}
	q := url.Values{}
	for name, value := range map[string]string{"check": f.check, "verdict": f.verdict, "reason": f.reason, "q": strings.Join(words, " ")} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// labels reports whether a record has the check, verdict and reason of the
// filter.
func (f *filter) labels(r *record.Record) bool {
	return matches(f.check, orNone(r.Check)) && matches(f.reason, string(r.Reason)) &&
		(f.verdict == "" || f.verdict == verdictOf(r.Labels()) || f.verdict == r.Verdict)
}

func matches(want, have string) bool { return want == "" || want == have }

// texts reports whether a record has the terms of the filter.
func (f *filter) texts(r *record.Record) bool {
	if len(f.terms) == 0 {
		return true
	}
	all := values(r)
	return !slices.ContainsFunc(f.terms, func(t term) bool {
		return !slices.ContainsFunc(all, func(v field) bool {
			return matches(t.key, v.key) && strings.Contains(strings.ToLower(v.text), t.text)
		})
	})
}

// field is a key of a record with its text.
type field struct{ key, text string }

// values returns the texts of a record, with those of its steps, which have no
// key of their own.
func values(r *record.Record) []field {
	var all []field
	for key, text := range r.Texts() {
		all = append(all, field{key, text})
	}
	all = append(all, field{"error", errorText(r.Err)})
	for i := range r.Steps {
		s := &r.Steps[i]
		all = append(all, field{"", s.Check}, field{"", s.Verdict}, field{"", string(s.Reason)}, field{"", s.Detail}, field{"", errorText(s.Err)})
	}
	return all
}

// keys returns the keys that a term may name.
func keys() []string {
	var all []string
	for _, f := range values(new(record.Record)) {
		all = append(all, f.key)
	}
	return all
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
