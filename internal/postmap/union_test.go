package postmap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// member answers with its name for keys it begins with, and fails for "down".
type member struct {
	name   string
	closed *int
}

func (m member) Lookup(_ context.Context, key string) ([]string, error) {
	switch {
	case m.name == "down":
		return nil, errors.New("backend down")
	case strings.HasPrefix(key, m.name[:1]):
		return []string{m.name + ":" + key}, nil
	}
	return nil, nil
}

func (m member) Locate(key string) string {
	if strings.HasPrefix(key, m.name[:1]) {
		return "at " + m.name
	}
	return ""
}

func (m member) Close() error { *m.closed++; return nil }

// unionOpener opens members by name; "p…" are pattern tables, "bad" does not open.
func unionOpener(closed *int) func(string) (Table, error) {
	return func(spec string) (Table, error) {
		if spec == "bad" {
			return Table{}, errors.New("will not open")
		}
		return Table{Spec: spec, Source: member{spec, closed}, Pattern: strings.HasPrefix(spec, "p")}, nil
	}
}

func TestUnionLookup(t *testing.T) {
	closed := 0
	u, err := parseUnion("{aa, ab p}", unionOpener(&closed))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"A1": "[aa:a1 ab:a1] at aa", "p1": "[p:p1] at p", "P1": "[] ", "z": "[] "} {
		values, err := u.Lookup(t.Context(), key)
		if got := fmt.Sprint(values, " ", u.Locate(key)); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", key, got, err, want)
		}
	}
	if u.Pattern() {
		t.Error("the first member is no pattern table, the union is")
	}
	if err := u.Close(); err != nil || closed != 3 {
		t.Errorf("%d members closed, %v", closed, err)
	}
}

func TestUnionPatternAndFailure(t *testing.T) {
	closed := 0
	u, err := parseUnion("{p,down}", unionOpener(&closed))
	if err != nil || !u.Pattern() {
		t.Fatalf("%v", err)
	}
	if _, err := u.Lookup(t.Context(), "p"); err == nil || err.Error() != "down: backend down" {
		t.Errorf("got %v", err)
	}
}

func TestBadUnions(t *testing.T) {
	for text, want := range map[string]string{
		"a":       `no "{"`,
		"{}":      "0 members",
		"{a {b c": `missing "}"`,
		"{a}b":    "after the closing brace",
		"{" + strings.Repeat("a ", MaxMembers+1) + "}": "101 members",
		"{a bad}": "will not open",
	} {
		closed := 0
		_, err := parseUnion(text, unionOpener(&closed))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", text, err)
		}
		if strings.Contains(text, "bad") != (closed == 1) {
			t.Errorf("%.20q: %d members closed", text, closed)
		}
	}
}
