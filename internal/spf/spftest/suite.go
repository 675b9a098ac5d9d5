// Package spftest loads the public test suite of RFC 7208: the openspf suite
// (2014.04), which is part of the module blitiri.com.ar/go/spf.
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

// Cases is how many cases the suite has. Tests compare it, so that the parser
// cannot miss a case unnoticed.
const Cases = 203

// Scenario is one zone and its cases.
type Scenario struct {
	Name    string
	Records []Record
	Cases   []Case
}

// Record is one record. Name and, for TXT, Value are raw bytes. Two types are
// failures: a name with one fails for the types of which it has no record.
type Record struct{ Name, Type, Value string }

// The types that are failures.
const (
	Timeout   = "TIMEOUT"
	CNAMELoop = "LOOP"
)

// Case is one message and its allowed results.
type Case struct {
	Name     string
	IP, Helo string
	MailFrom string
	Results  []string
	// Explanation is the expected explanation of a fail, if HasExplanation. ""
	// means the default one.
	Explanation    string
	HasExplanation bool
}

// Load reads the suite from the module cache. It ignores the "skip" marks, which
// are for another library.
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

// records reads zonedata. A record of the obsolete type SPF means TXT when the name
// has no TXT entry. "TXT: NONE" means that there is no TXT record.
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
