package reportread

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"
)

// fuzzLimits keep one run short.
var fuzzLimits = Limits{Inflated: 1 << 20, Archive: 1 << 18, JSON: 1 << 18, Rows: 1000, Groups: 100}

func FuzzAggregate(f *testing.F) {
	f.Add(plain())
	f.Add(feedback(head + rowXML("192.0.2.1", 1, "pass", "pass")))
	f.Add("<!DOCTYPE x [<!ENTITY a 'b'>]><feedback>&a;</feedback>")
	f.Add("\xff\xfe" + utf16le(plain()))
	f.Add(`<?xml version="1.0" encoding="shift_jis"?><feedback><a b='c'/><bad<xml@x></feedback>`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseAggregate(newBuffered(strings.NewReader(text)), fuzzLimits.withDefaults())
		if err != nil {
			return
		}
		var total int64
		for _, g := range r.Groups {
			total += g.Messages
			if !utf8.ValidString(g.Why) || len(g.Why) > maxText || len(g.From) > maxText || g.Messages < 0 {
				t.Errorf("group %+v", g)
			}
		}
		if total != r.Messages || len(r.Groups) > fuzzLimits.Groups+8 || r.Policy.Domain == "" || r.End.Before(r.Begin) {
			t.Errorf("report %+v", r)
		}
		tally := &Tally{}
		tally.Add(r)
		tally.Add(r)
		if sum := tally.Summary(); sum.Domains[0].Messages != total || sum.Duplicates != 1 {
			t.Errorf("summary %+v", sum)
		}
	})
}

func FuzzTLS(f *testing.F) {
	f.Add(tlsJSON)
	f.Add(`{"policies":[null,{}],"date-range":{"start-datetime":"0","end-datetime":"1"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseTLS(newBuffered(strings.NewReader(text)), fuzzLimits.withDefaults())
		if err != nil {
			return
		}
		tally := &Tally{}
		tally.AddTLS(r)
		if sum := tally.Summary(); len(sum.TLS) == 0 {
			t.Errorf("report %+v", r)
		}
	})
}

// FuzzContainers reads archives, mails and mailboxes within each other.
func FuzzContainers(f *testing.F) {
	mail := mailOf("application/zip", "a.zip", zipped(f, plain()))
	for _, text := range []string{
		plain(), tlsJSON, gzipped(f, plain()), zipped(f, gzipped(f, plain()), tlsJSON), mail, bareMail(gzipped(f, tlsJSON)),
		mailOf("message/rfc822", "", mail), strings.ReplaceAll(mail, "==b==\r\n", "==b==\r\nno field\r\n"), "From x\n" + mail + "\nFrom y\n" + mail,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := newFound(fuzzLimits)
		if err := got.Stream(context.Background(), "in", strings.NewReader(text)); err != nil {
			t.Error(err)
		}
		if len(got.problems) != got.Failed {
			t.Errorf("%d problems, %q", got.Failed, got.problems)
		}
	})
}
