package reportread

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of a DMARC report.
const (
	maxNesting  = 32
	maxResults  = 100     // of DKIM or SPF, and overrides, of one row
	maxErrors   = 20      // of the reporter
	maxMessages = 1 << 40 // of one row
)

// The reasons why a document is not a report.
var (
	errDoctype    = errors.New("XML: it has a document type declaration, which no report needs and which can be an attack")
	errNesting    = fmt.Errorf("XML: elements more than %d deep", maxNesting)
	errNoFeedback = errors.New("XML: there is no <feedback> element: it is no DMARC aggregate report")
	errTruncated  = errors.New("XML: it ends before </feedback>: part of the report is missing")
	errDates      = errors.New("the report has no usable date_range")
	errDomain     = errors.New("the report does not name the domain of the policy")
)

// row is one <record>.
type row struct {
	source, count, from, disposition, dkim, spf string
	results                                     []result // of DKIM and SPF
	overrides                                   []result
}

// result is the result of one signature or of SPF. It is also used for an override, with
// its type as method.
type result struct{ method, domain, selector, result, comment string }

// aggregate reads one document.
type aggregate struct {
	limits     Limits
	report     *Report
	begin, end string
	inside     bool   // of <feedback>
	path       []byte // of the element, below <feedback>
	ends       []int  // of the path of each parent
	text       strings.Builder
	row        row
	one        result // the one that is being read
	groups     map[Group]int64
	texts      int64 // octets of the texts of groups
}

// damaged is what is wrong with a document that has a <feedback> element.
type damaged struct{ error }

func (d damaged) Unwrap() error { return d.error }

// parseAggregate parses a DMARC aggregate report of any version. RFC 7489, RFC 9990 and
// the drafts before them differ in namespaces and in added elements. The order of
// elements does not matter.
func parseAggregate(in *buffered, limits Limits) (*Report, error) {
	text, err := asUTF8(in)
	if err != nil {
		return nil, err
	}
	bounded := &pieces{in: newTidy(text), err: errPiece}
	d := xml.NewDecoder(bounded)
	d.Strict = false // accepts "&" in names; elements that are not closed are found below
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	a := &aggregate{limits: limits, report: &Report{}, groups: make(map[Group]int64)}
	for done := false; !done; {
		bounded.allow(maxPiece)
		token, err := d.Token()
		if err != nil {
			return nil, a.fault(a.broken(err))
		}
		if done, err = a.take(token); err != nil {
			return nil, a.fault(err)
		}
	}
	report, err := a.finish()
	return report, a.fault(err)
}

// fault marks an error of a document that is a report.
func (a *aggregate) fault(err error) error {
	if err != nil && a.inside {
		return damaged{err}
	}
	return err
}

// broken returns the error that explains why there is no further token.
func (a *aggregate) broken(err error) error {
	syntax := (*xml.SyntaxError)(nil)
	switch {
	case errors.Is(err, io.EOF) && !a.inside:
		return errNoFeedback
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax) && syntax.Msg == "unexpected EOF":
		return errTruncated
	case errors.As(err, &syntax):
		return fmt.Errorf("XML: line %d: %.200s", syntax.Line, syntax.Msg)
	}
	return fmt.Errorf("XML: %w", err)
}

// take processes one token. It reports whether the report has ended.
func (a *aggregate) take(token xml.Token) (done bool, err error) {
	switch token := token.(type) {
	case xml.Directive:
		if text := strings.ToLower(string(token[:min(len(token), 12)])); !a.inside && text == "doctype html" {
			return false, errNoFeedback // a web page
		}
		return false, errDoctype
	case xml.StartElement:
		return false, a.start(strings.ToLower(token.Name.Local))
	case xml.EndElement:
		if !a.inside {
			return false, nil
		}
		return a.close()
	case xml.CharData:
		if room := 4*maxText - a.text.Len(); a.inside && room > 0 {
			a.text.Write(token[:min(len(token), room)])
		}
	}
	return false, nil
}

func (a *aggregate) start(name string) error {
	if !a.inside { // some reporters put the report into another element
		a.inside = name == "feedback"
		return nil
	}
	if len(a.ends) == maxNesting {
		return errNesting
	}
	a.ends = append(a.ends, len(a.path))
	if len(a.path) > 0 {
		a.path = append(a.path, '/')
	}
	a.path = append(a.path, name...)
	a.text.Reset()
	switch string(a.path) {
	case "record":
		a.row = row{results: a.row.results[:0], overrides: a.row.overrides[:0]}
	case "record/auth_results/dkim", "record/auth_results/spf", "record/row/policy_evaluated/reason":
		a.one = result{method: name}
	}
	return nil
}

func (a *aggregate) close() (done bool, err error) {
	if len(a.ends) == 0 {
		return true, nil
	}
	if set := fields[string(a.path)]; set != nil {
		set(a, clipped(strings.ToValidUTF8(a.text.String(), "")))
	}
	switch string(a.path) {
	case "record":
		err = a.count()
	case "record/auth_results/dkim", "record/auth_results/spf":
		if len(a.row.results) < maxResults {
			a.row.results = append(a.row.results, a.one)
		}
	case "record/row/policy_evaluated/reason":
		if len(a.row.overrides) < maxResults && a.one.method != "" {
			a.row.overrides = append(a.row.overrides, a.one)
		}
	}
	a.text.Reset()
	last := len(a.ends) - 1
	a.path, a.ends = a.path[:a.ends[last]], a.ends[:last]
	return false, err
}

// fields are the elements with text, by their path below <feedback>.
var fields = map[string]func(*aggregate, string){
	"report_metadata/org_name":           func(a *aggregate, s string) { a.report.Org = s },
	"report_metadata/email":              func(a *aggregate, s string) { a.report.Email = s },
	"report_metadata/extra_contact_info": func(a *aggregate, s string) { a.report.Contact = s },
	"report_metadata/report_id":          func(a *aggregate, s string) { a.report.ID = s },
	"report_metadata/generator":          func(a *aggregate, s string) { a.report.Generator = s },
	"report_metadata/date_range/begin":   func(a *aggregate, s string) { a.begin = s },
	"report_metadata/date_range/end":     func(a *aggregate, s string) { a.end = s },
	"report_metadata/error": func(a *aggregate, s string) {
		if len(a.report.Errors) < maxErrors {
			a.report.Errors = append(a.report.Errors, s)
		}
	},

	"policy_published/domain":           func(a *aggregate, s string) { a.report.Policy.Domain = domain(s) },
	"policy_published/discovery_method": func(a *aggregate, s string) { a.report.Policy.Discovery = word(s) },
	"policy_published/p":                func(a *aggregate, s string) { a.report.Policy.P = word(s) },
	"policy_published/sp":               func(a *aggregate, s string) { a.report.Policy.SP = word(s) },
	"policy_published/np":               func(a *aggregate, s string) { a.report.Policy.NP = word(s) },
	"policy_published/adkim":            func(a *aggregate, s string) { a.report.Policy.ADKIM = word(s) },
	"policy_published/aspf":             func(a *aggregate, s string) { a.report.Policy.ASPF = word(s) },
	"policy_published/pct":              func(a *aggregate, s string) { a.report.Policy.Percent = word(s) },
	"policy_published/fo":               func(a *aggregate, s string) { a.report.Policy.FO = word(s) },
	"policy_published/testing":          func(a *aggregate, s string) { a.report.Policy.Testing = word(s) },

	"record/row/source_ip":                    func(a *aggregate, s string) { a.row.source = s },
	"record/row/count":                        func(a *aggregate, s string) { a.row.count = s },
	"record/row/policy_evaluated/disposition": func(a *aggregate, s string) { a.row.disposition = word(s) },
	"record/row/policy_evaluated/dkim":        func(a *aggregate, s string) { a.row.dkim = word(s) },
	"record/row/policy_evaluated/spf":         func(a *aggregate, s string) { a.row.spf = word(s) },
	"record/identifiers/header_from":          func(a *aggregate, s string) { a.row.from = domain(s) },
	"record/identities/header_from":           func(a *aggregate, s string) { a.row.from = domain(s) }, // an old draft

	"record/row/policy_evaluated/reason/type":    func(a *aggregate, s string) { a.one.method = word(s) },
	"record/row/policy_evaluated/reason/comment": func(a *aggregate, s string) { a.one.comment = s },
	"record/auth_results/dkim/domain":            func(a *aggregate, s string) { a.one.domain = domain(s) },
	"record/auth_results/dkim/selector":          func(a *aggregate, s string) { a.one.selector = s },
	"record/auth_results/dkim/result":            func(a *aggregate, s string) { a.one.result = word(s) },
	"record/auth_results/dkim/human_result":      func(a *aggregate, s string) { a.one.comment = s },
	"record/auth_results/spf/domain":             func(a *aggregate, s string) { a.one.domain = domain(s) },
	"record/auth_results/spf/result":             func(a *aggregate, s string) { a.one.result = word(s) },
	"record/auth_results/spf/human_result":       func(a *aggregate, s string) { a.one.comment = s },
}

func domain(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

// word normalizes a token of the format. Some reporters write "Pass".
func word(s string) string { return strings.ToLower(s) }

// count adds a row to its group.
func (a *aggregate) count() error {
	r := a.report
	if r.Rows++; r.Rows > a.limits.Rows {
		return fmt.Errorf("the report has more than %d rows", a.limits.Rows)
	}
	n, err := strconv.ParseInt(a.row.count, 10, 64)
	source, err2 := netip.ParseAddr(a.row.source)
	switch {
	case err != nil || n < 0 || n > maxMessages || r.Messages > math.MaxInt64-maxMessages:
		a.unusable("count", a.row.count)
		return nil
	case err2 != nil:
		a.unusable("source_ip", a.row.source)
		return nil
	}
	g := a.group(source.Unmap().WithZone(""))
	if _, known := a.groups[g]; !known {
		if a.texts += int64(len(g.From) + len(g.Why)); a.texts > a.limits.Texts || len(a.groups) >= a.limits.Groups {
			g = Group{From: others, Disposition: g.Disposition, DKIM: g.DKIM, SPF: g.SPF}
		}
	}
	a.groups[g] += n
	r.Messages += n
	return nil
}

func (a *aggregate) unusable(field, value string) {
	if a.report.Unusable++; a.report.Unusable == 1 {
		a.report.UnusableWhy = fmt.Sprintf("row %d: %s is %.60q", a.report.Rows, field, value)
	}
}

// finish checks that the report has what every report needs.
func (a *aggregate) finish() (*Report, error) {
	r := a.report
	var err, err2 error
	r.Begin, err = timestamp(a.begin)
	r.End, err2 = timestamp(a.end)
	switch {
	case err != nil || err2 != nil || r.End.Before(r.Begin):
		return nil, fmt.Errorf("%w (begin %.40q, end %.40q)", errDates, a.begin, a.end)
	case r.Policy.Domain == "":
		return nil, errDomain
	}
	if r.Org == "" { // some reporters leave it empty
		r.Org = r.Email
	}
	for g, n := range a.groups {
		g.Messages = n
		r.Groups = append(r.Groups, g)
	}
	slices.SortFunc(r.Groups, compareGroups)
	return r, nil
}

// timestamp parses seconds since 1970, as in the standard, and other forms that some
// reporters write.
func timestamp(text string) (time.Time, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if seconds > 1e11 {
			seconds /= 1000
		}
		if math.IsNaN(seconds) || seconds < 1 || seconds > 7e9 { // until 2191; the standard's own example is of 1979
			return time.Time{}, errDates
		}
		return time.Unix(int64(seconds), 0).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil && at.Year() >= 1970 && at.Year() < 2192 {
			return at.UTC(), nil
		}
	}
	return time.Time{}, errDates
}
