package dmarc

import (
	"context"
	"strings"
)

// Walk is one walk up the DNS tree (RFC 9989 section 4.10).
type Walk struct {
	Start string
	// Steps are the results for the names, from the longest name to the shortest.
	// The walk ends after a record with psd=y or psd=n, or after an error.
	Steps []Step
	// Org is the organizational domain of Start (section 4.10.2). It is "" after
	// an error.
	Org string
	Err error // the DNS did not answer
}

// walkNames returns the domains of a walk from start. They are start, its
// parent, and so on up to the top-level domain. If start has more than eight
// labels, the second domain is not its parent but its last seven labels.
func walkNames(start string) []string {
	names := make([]string, 1, MaxWalkQueries)
	names[0] = start
	name := start
	for labels := strings.Count(start, ".") + 1; labels > 1; {
		drop := max(1, labels-(MaxWalkQueries-1))
		for range drop {
			name = name[strings.IndexByte(name, '.')+1:]
		}
		labels -= drop
		names = append(names, name)
	}
	return names
}

// walk makes a walk from a domain.
func (f *finder) walk(ctx context.Context, start string) Walk {
	w := Walk{Start: start}
	for _, name := range walkNames(start) {
		s := f.record(ctx, name)
		w.Steps = append(w.Steps, s)
		if s.Err != nil {
			w.Err = s.Err
			return w
		}
		if s.Record != nil && s.Record.PSD != PSDUnknown {
			break
		}
	}
	w.Org = w.organizational()
	return w
}

// organizational selects the organizational domain (section 4.10.2).
func (w *Walk) organizational() string {
	org := w.Start
	for _, s := range w.Steps {
		switch {
		case s.Record == nil:
		case s.Record.PSD == PSDYes && s.Domain != w.Start:
			return oneBelow(w.Start, s.Domain)
		default:
			org = s.Domain // psd=n is the last step; otherwise the last record is that of the shortest name
		}
	}
	return org
}

// oneBelow returns the end of name that has one label more than suffix.
func oneBelow(name, suffix string) string {
	head := strings.TrimSuffix(name, "."+suffix)
	return head[strings.LastIndexByte(head, '.')+1:] + "." + suffix
}

// step returns the record of a domain in the walk.
func (w *Walk) step(domain string) *Record {
	for _, s := range w.Steps {
		if s.Domain == domain {
			return s.Record
		}
	}
	return nil
}

// suffixRecord returns the record of the public suffix at which the walk
// ended.
func (w *Walk) suffixRecord() (string, *Record) {
	last := w.Steps[len(w.Steps)-1]
	if last.Record != nil && last.Record.PSD == PSDYes {
		return last.Domain, last.Record
	}
	return "", nil
}

// isBelow reports whether name is domain or a name below it.
func isBelow(name, domain string) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && (rest == "" || strings.HasSuffix(rest, "."))
}
