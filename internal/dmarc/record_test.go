package dmarc

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseRecord(t *testing.T) {
	// Each case says what differs from a record with defaults alone.
	tests := []struct {
		name, text string
		want       func(*Record)
	}{
		{"version alone", "v=DMARC1", func(*Record) {}},
		{"version and separator", "v=DMARC1 ; ", func(*Record) {}},
		{"all tags", "v=DMARC1; p=reject; sp=quarantine; np=none; adkim=s; aspf=s; psd=n; t=y; fo=1:d:s; rua=mailto:a@b.c; ruf=https://x.y/z; pct=7",
			func(r *Record) {
				r.P, r.SP, r.NP = PolicyReject, PolicyQuarantine, PolicyNone
				r.StrictDKIM, r.StrictSPF, r.Test, r.PSD, r.FO, r.Percent = true, true, true, PSDNo, "1:d:s", 7
				r.RUA, r.RUF = []string{"mailto:a@b.c"}, []string{"https://x.y/z"}
			}},
		{"defaults spelled out", "v=DMARC1; adkim=r; aspf=r; psd=u; t=n; fo=0; pct=100", func(*Record) {}},
		{"values ignoring case", "v=DMARC1;P=NONE;ADKIM=S;PSD=Y;T=Y;FO=D", func(r *Record) {
			r.P, r.StrictDKIM, r.PSD, r.Test, r.FO = PolicyNone, true, PSDYes, true, "d"
		}},
		{"bad URIs are dropped", "v=DMARC1; rua=mailto:a@b.c , mailto:a@b.c!10m, b@c.d, mailto:, 1x:y, m&:x, x:a b, https://c.d/?q=1, mailto:a%21b@c.d", func(r *Record) {
			r.RUA = []string{"mailto:a@b.c", "https://c.d/?q=1", "mailto:a%21b@c.d"}
		}},
		{"an exclamation mark that is not encoded", "v=DMARC1; rua=mailto:a@b.c!10m; ruf=mailto:a!b@c.d", func(r *Record) { r.Broken = []string{"rua", "ruf"} }},
		{"the version's name in upper case", "V=DMARC1; p=reject", func(r *Record) { r.P = PolicyReject }},
		{"the same with space", "V\t= DMARC1;p=none", func(r *Record) { r.P = PolicyNone }},
		{"no valid URI", "v=DMARC1; rua=a@b.c; ruf=", func(r *Record) { r.Broken = []string{"rua", "ruf"} }},
		{"broken values", "v=DMARC1; p=no; sp=; np=rejected; adkim=x; aspf=; psd=yes; t=1; fo=2; pct=101", func(r *Record) {
			r.Broken = []string{"p", "sp", "np", "adkim", "aspf", "psd", "t", "fo", "pct"}
		}},
		{"odd fo", "v=DMARC1; fo=0:1:d:s", func(r *Record) { r.Broken = []string{"fo"} }},
		{"negative pct", "v=DMARC1; pct=-1", func(r *Record) { r.Broken = []string{"pct"} }},
		{"every tag twice", "v=DMARC1; p=none; p=none; sp=none; sp=none; np=none; np=none; adkim=s; adkim=s; aspf=s; aspf=s; psd=y; psd=y; t=y; t=y; fo=1; fo=1; rua=x:y; rua=x:y; ruf=x:y; ruf=x:y; pct=1; pct=1",
			func(r *Record) {
				r.Broken = []string{"p", "sp", "np", "adkim", "aspf", "psd", "t", "fo", "rua", "ruf", "pct"}
			}},
		{"three times", "v=DMARC1; p=none; p=x; p=none", func(r *Record) { r.Broken = []string{"p"} }},
		{"value with an equals sign", "v=DMARC1; p=none=x", func(r *Record) { r.Broken = []string{"p"} }},
		{"tag without a value", "v=DMARC1; p; t", func(r *Record) { r.Broken = []string{"p", "t"} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := Record{PSD: PSDUnknown, Percent: 100, FO: "0"}
			tt.want(&want)
			got, ok := ParseRecord(tt.text)
			if !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v\nwant %+v", got, ok, want)
			}
		})
	}
}

func TestNoRecord(t *testing.T) {
	for _, text := range []string{
		"", "v", "v=", "v=DMARC", "v=DMARC1x; p=none", "v=DMARC1 x; p=none", "V=dmarc1; p=none", "v=Dmarc1; p=none", "w=DMARC1; p=none", "\x16=DMARC1; p=none",
		" v=DMARC1; p=none", ";v=DMARC1; p=none", "p=none; v=DMARC1", "v=spf1 -all", "v==DMARC1", "v=DMARC1\x00; p=none", "v=DMARC1\n; p=none",
	} {
		if r, ok := ParseRecord(text); ok {
			t.Errorf("%q is a record: %+v", text, r)
		}
	}
}

func TestManyURIs(t *testing.T) {
	r, _ := ParseRecord("v=DMARC1; rua=" + strings.Repeat("mailto:a@b.c,", 1000))
	if len(r.RUA) != maxURIs || len(r.Broken) != 0 {
		t.Errorf("%d kept, broken: %v", len(r.RUA), r.Broken)
	}
}
