package main

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
)

func TestPrintDNSBL(t *testing.T) {
	var out strings.Builder
	printDNSBL(&out, api.DNSBLCheckResult{Subject: "192.0.2.7", Asked: true, Score: 3, Threshold: 3, Refused: true, Verdict: api.DNSBLRefused, Zones: []api.DNSBLZone{
		{Zone: "a.example", State: "in service", Codes: []api.DNSBLCode{{Code: "127.0.0.2", Meaning: "SBL", Class: "listed"}}, Weight: 3, Counted: true, Text: "go\x1b[2Jaway\u009b", Millis: 1.25},
		{Zone: "b.example", State: "in service", Millis: 20},
		{Zone: "c.example", State: "no_answer", Error: "no answer in time", Fix: "check the resolver"},
		{Zone: "d.example", State: "in service", Codes: []api.DNSBLCode{{Code: "127.0.1.102", Meaning: "abused", Class: "abused"}}},
	}})
	want := `LIST       STATE       ANSWER       MEANING          WEIGHT  LATENCY
a.example  in service  127.0.0.2    SBL (listed)     +3      1.2 ms
b.example  in service  not listed   -                -       20.0 ms
c.example  no_answer   none         -                -       0.0 ms
d.example  in service  127.0.1.102  abused (abused)  -       0.0 ms
  a.example: go?[2Jaway?
  c.example: no answer in time
  c.example: check the resolver
192.0.2.7: score 3, threshold 3: refused
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

func TestPrintSelfTest(t *testing.T) {
	var out strings.Builder
	zone := api.DNSBLZone{Zone: "a.example", Kind: "address", State: "lists_everything", Fix: "take it out"}
	printSelfTest(&out, api.DNSBLSelfTestResult{Zones: []api.DNSBLTest{{DNSBLZone: zone, Points: []api.DNSBLPoint{
		{Subject: "127.0.0.2", Want: "listed", Codes: []api.DNSBLCode{{Code: "127.0.0.2"}}, OK: true, Millis: 1},
		{Subject: "127.0.0.1", Want: "not listed", Codes: []api.DNSBLCode{{Code: "127.0.0.2"}}},
		{Subject: "::ffff:127.0.0.2", Want: "listed", Optional: true},
		{Subject: "127.200.1.1", Want: "not listed", Error: "no answer in time"},
	}}}})
	want := `a.example (address): lists_everything
  127.0.0.2         127.0.0.2          as it should be       1.0 ms
  127.0.0.1         127.0.0.2          should be not listed  0.0 ms
  ::ffff:127.0.0.2  not listed         need not be listed    0.0 ms
  127.200.1.1       no answer in time  should be not listed  0.0 ms
  take it out
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}
