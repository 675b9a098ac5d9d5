// Package spftest holds the public test suite of RFC 7208 as Go values: the
// openspf suite (2014.04), which the module blitiri.com.ar/go/spf carries.
package spftest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Cases is how many cases the suite has. A parser that overlooks one must not
// look green.
const Cases = 203

// Scenario is one zone and the cases on it.
type Scenario struct {
	Name    string
	Records []Record
	Cases   []Case
}

// Record is one record. Name and, for TXT, Value are raw bytes. Two types say how
// a name fails for the types of which it has no record.
type Record struct{ Name, Type, Value string }

// The types that are failures.
const (
	Timeout   = "TIMEOUT"
	CNAMELoop = "LOOP"
)

// Case is one message and what may come of it.
type Case struct {
	Name     string
	IP, Helo string
	MailFrom string
	Results  []string
	// Explanation is what a fail says, if HasExplanation; "" is the default one.
	Explanation    string
	HasExplanation bool
}

// Load reads the suite out of the module cache. The suite's "skip" marks are
// another library's and are not followed.
func Load() ([]Scenario, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "blitiri.com.ar/go/spf").Output()
	if err != nil {
		return nil, fmt.Errorf("spftest: go list: %w", err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return nil, errors.New("spftest: blitiri.com.ar/go/spf is not in the module cache; run go mod download")
	}
	text, err := os.ReadFile(filepath.Join(dir, "testdata", "rfc7208-tests.yml"))
	if err != nil {
		return nil, fmt.Errorf("spftest: %w", err)
	}
	var all []Scenario
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		n, err := parseYAML(doc)
		if err != nil {
			return nil, fmt.Errorf("spftest: %w", err)
		}
		if n.get("tests") != nil {
			all = append(all, scenario(n))
		}
	}
	return all, nil
}

func scenario(n *node) Scenario {
	s := Scenario{Name: n.get("description").scalar, Records: records(n.get("zonedata"))}
	for _, t := range n.get("tests").pairs {
		c := Case{
			Name: t.key, IP: t.value.get("host").scalar, Helo: t.value.get("helo").scalar,
			MailFrom: t.value.get("mailfrom").scalar, Results: t.value.get("result").strings(),
		}
		if e := t.value.get("explanation"); e != nil {
			c.HasExplanation = true
			if e.scalar != "DEFAULT" {
				c.Explanation = e.scalar
			}
		}
		s.Cases = append(s.Cases, c)
	}
	return s
}

// records reads zonedata. Records of the obsolete type SPF mean TXT where a
// name has no TXT entry; "TXT: NONE" says that there is none.
func records(data *node) []Record {
	var all []Record
	for _, name := range data.pairs {
		hasTXT := slices.ContainsFunc(name.value.items, func(r *node) bool { return r.pairs[0].key == "TXT" })
		for _, item := range name.value.items {
			r := Record{Name: name.key, Type: item.pairs[0].key}
			value := item.pairs[0].value
			switch {
			case r.Type == "CNAMELOOP":
				r.Type = CNAMELoop
			case r.Type == Timeout:
			case r.Type == "SPF" && hasTXT, value.scalar == "NONE":
				continue
			case r.Type == "SPF", r.Type == "TXT":
				r.Type, r.Value = "TXT", strings.Join(value.strings(), "")
			default:
				r.Value = strings.Join(value.strings(), " ")
			}
			all = append(all, r)
		}
	}
	return all
}
