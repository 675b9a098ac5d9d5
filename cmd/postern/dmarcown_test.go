package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/dmarcreport/sqlitestore"
	"github.com/postern-mail/postern/internal/reportread"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// The reports that we send are read as what was counted.
func TestDMARCReadsOwnReports(t *testing.T) {
	const day dmarcreport.Day = 20_000
	store, err := sqlitestore.Open(sqlitestore.Options{Path: filepath.Join(t.TempDir(), "counted.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	policy := dmarcreport.Policy{P: "reject", NP: "none", ADKIM: "r", ASPF: "s", FO: "1:d", Testing: true, Method: "treewalk"}
	good := &dmarcreport.Row{Source: "192.0.2.1", Disposition: "pass", DKIM: true, SPF: true, HeaderFrom: "one.example", SPFDomain: "one.example", SPFResult: "pass"}
	bad := &dmarcreport.Row{
		Source: "2001:db8::1", Disposition: "reject", HeaderFrom: "a.one.example", SPFDomain: "list.example", SPFResult: "softfail",
		Reasons:    []dmarcreport.Reason{{Type: "local_policy", Comment: "a & <b>"}},
		Signatures: []dmarcreport.Signature{{Domain: "one.example", Selector: "s", Result: "fail"}, {Domain: "list.example", Result: "pass"}},
	}
	c := dmarcreport.NewCollector(store, func() time.Time { return day.Begin().Add(time.Hour) }, nil)
	for range 3 {
		c.Record("one.example", policy, good)
		c.Record("two.example", policy, good)
	}
	c.Record("one.example", policy, bad)
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	folder, mails := t.TempDir(), 0
	s := &dmarcreport.Sender{
		Reporter: dmarcreport.Reporter{From: "reports@mx.example", Receiver: "mx.example", Org: "M & X", Generator: "Postern test"},
		Store:    store, Now: func() time.Time { return day.End().Add(time.Hour) },
		Resolver: resolvertest.NewZone(t, "_dmarc.one.example. TXT \"v=DMARC1; p=reject; rua=mailto:dmarc@one.example\"\n_dmarc.two.example. TXT \"v=DMARC1; p=reject; rua=mailto:dmarc@two.example\"\n"),
		Sign: func(context.Context, []dmarcreport.Field, func(io.Writer) error) ([]dmarcreport.Field, error) {
			return nil, nil
		},
		Deliver: func(_ context.Context, _ dmarcreport.Envelope, write func(io.Writer) error) error {
			mails++
			f, err := os.Create(filepath.Join(folder, fmt.Sprint(mails)))
			if err != nil {
				return err
			}
			return errors.Join(write(f), f.Close())
		},
	}
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || mails != 2 {
		t.Fatalf("%d mails, %v", mails, err)
	}

	code, out, stderr := postern(t, "dmarc", "read", "--dns=false", "--json", folder)
	var sum reportread.Summary
	if err := json.Unmarshal([]byte(out), &sum); err != nil || code != exitYes || stderr != "" {
		t.Fatalf("exit %d, %v, %s: %s", code, err, stderr, out)
	}
	if sum.Reports != 2 || sum.Rows != 3 || sum.Unusable != 0 || len(sum.Domains) != 2 {
		t.Fatalf("got %s", out)
	}
	one, two := sum.Domains[0], sum.Domains[1]
	if want := (reportread.Counts{Messages: 4, Passed: 3, DKIM: 3, SPFPassed: 3, Rejected: 1}); one.Domain != "one.example" || one.Counts != want {
		t.Errorf("%s: %+v", one.Domain, one.Counts)
	}
	if want := (reportread.Counts{Messages: 3, Passed: 3, DKIM: 3, SPFPassed: 3}); two.Domain != "two.example" || two.Counts != want {
		t.Errorf("%s: %+v", two.Domain, two.Counts)
	}
	if one.Policy != "p=reject; np=none; aspf=s; t=y" || len(one.Days) != 1 || one.Days[0].Day != day.String() || !one.Begin.Equal(day.Begin()) || !one.End.Equal(day.End()) || one.Reporters[0].Text != "M & X" {
		t.Errorf("got %+v", one)
	}
	if len(one.Sources) != 2 || one.Sources[0].Address != good.Source || len(one.Sources[0].Why) != 0 || one.Sources[1].Address != bad.Source || one.Sources[1].From[0].Text != bad.HeaderFrom {
		t.Fatalf("got %s", out)
	}
	const why = "DKIM: fail for one.example, selector s; pass for list.example, not aligned; SPF: softfail for list.example; override: local_policy (a & <b>)"
	if got := one.Sources[1].Why; len(got) != 1 || got[0].Text != why {
		t.Errorf("got  %v\nwant %s", got, why)
	}
	if _, out, _ := postern(t, "dmarc", "read", "--dns=false", folder); !strings.HasPrefix(out, "reports: 2\n") {
		t.Errorf("got %s", out)
	}
}
