package spf

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/spf/spftest"
)

// TestStandardSuite runs the openspf test suite for RFC 7208 (2014.04), every
// case, explanations included.
func TestStandardSuite(t *testing.T) {
	scenarios, err := spftest.Load()
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, s := range scenarios {
		z := newZone()
		for _, r := range s.Records {
			z.Add(r.Name, r.Type, r.Value)
		}
		for _, c := range s.Cases {
			ran++
			t.Run(s.Name+"/"+c.Name, func(t *testing.T) { runSuiteCase(t, z, c) })
		}
	}
	if ran != spftest.Cases {
		t.Errorf("ran %d cases, want %d", ran, spftest.Cases)
	}
}

func runSuiteCase(t *testing.T, z *zone, c spftest.Case) {
	at := strings.LastIndexByte(c.MailFrom, '@')
	args := Args{
		IP:       netip.MustParseAddr(c.IP),
		Helo:     c.Helo,
		Sender:   Sender{Domain: c.MailFrom[at+1:], Local: c.MailFrom[:max(at, 0)]},
		Receiver: "receiver.example.net",
		Now:      time.Unix(1_700_000_000, 0),
	}
	got := CheckMailFrom(context.Background(), z, args)
	if !slices.Contains(c.Results, string(got.Status)) {
		t.Errorf("status %s, want %v (%v)", got.Status, c.Results, got.Err)
	}
	if c.HasExplanation && got.Explanation != c.Explanation {
		t.Errorf("explanation %q, want %q", got.Explanation, c.Explanation)
	}
}
