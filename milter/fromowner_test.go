package milter

import (
	"context"
	"errors"
	"fmt"
	stdmail "net/mail"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/record"
)

// errTables is the error of tables that cannot be read.
var errTables = errors.New("the tables are away")

// failing are tables that cannot be read.
type failing struct{}

func (failing) Check(context.Context, mailaddr.Address, string) (ownership.Answer, error) {
	return ownership.Answer{}, errTables
}

const (
	ownerOfAll = "alice@home.example"
	ownerTable = "inline:{ {info@home.example = alice@home.example}, {@catch.example = alice@home.example}, {ceo@home.example = bob@home.example} }"
)

func testJudge(t *testing.T) *ownership.Judge {
	t.Helper()
	table, err := postmap.Open(ownerTable, postmap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	owners, err := ownership.New(ownership.Config{Owners: []postmap.Table{table}, SelfOwned: true, Delimiters: "+", LocalDomains: []string{"home.example"}})
	if err != nil {
		t.Fatal(err)
	}
	return &ownership.Judge{
		Owners: owners, Exempt: ownership.NewLogins([]string{"root@home.example"}, ""),
		Rewriting: &mailaddr.Rewriting{PercentHack: true, SwapBangpath: true, AppendAtMyorigin: true, Local: map[string]bool{"home.example": true}},
	}
}

// header reads fields, one per line.
func header(text string) (fields []Field) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		fields = append(fields, Field{Name: name, Value: value})
	}
	return fields
}

func TestFromOwners(t *testing.T) {
	const owned, self = record.OwnerOwned, record.OwnerSelf
	for _, tt := range []struct {
		name, header string
		reason       record.Reason
		text         string // in the reply
		display      string
	}{
		{"own", "From: Alice <alice@home.example>", self, "", ""},
		{"own, folded case and extension", "From: <Alice+x@HOME.example>", self, "", ""},
		{"alias", "From: info@home.example", owned, "", ""},
		{"catch-all", "From: any@catch.example", owned, "", ""},
		{"own Sender", "From: alice@home.example\nSender: info@home.example", self, "", ""},
		{"empty Sender", "From: alice@home.example\nSender: ", self, "", ""},
		{"list of own", "From: alice@home.example, Info <info@home.example>", self, "", ""},
		{"group of own", "From: Us: alice@home.example;", self, "", ""},
		{"unquoted comma", "From: Doe, Alice <alice@home.example>", self, "", ""},
		{"unquoted own address", "From: alice@home.example <alice@home.example>", self, "", ""},
		{"single quotes", "From: 'alice@home.example' <alice@home.example>", self, "", ""},
		{"unquoted at", "From: Alice @ home <alice@home.example>", self, "", ""},
		{"brackets", "From: [External] Alice <alice@home.example>", self, "", ""},
		{"brackets in quotes", `From: "ceo@home.example [x]" <alice@home.example>`, self, "", "ceo@home.example"},
		{"Reply-To is free", "From: alice@home.example\nReply-To: bob@home.example", self, "", ""},
		{"own redirect", "From: info@home.example\nResent-From: alice@home.example", owned, "", ""},

		{"other", "From: bob@home.example", record.FromNotOwned, "<bob@home.example>: From address rejected: not owned by user alice@home.example", ""},
		{"other domain", "From: Alice <alice@victim.example>", record.FromNotOwned, "<alice@victim.example>: From", ""},
		{"second", "From: alice@home.example, bob@home.example", record.FromNotOwned, "<bob@home.example>: From", ""},
		{"in a group", "From: Us: alice@home.example, bob@home.example;", record.FromNotOwned, "<bob@home.example>: From", ""},
		{"Sender", "From: alice@home.example\nSender: bob@home.example", record.FromNotOwned, "<bob@home.example>: Sender", ""},
		{"second Sender", "From: alice@home.example\nSender: alice@home.example\nsender: bob@home.example", record.FromNotOwned, "<bob@home.example>: Sender", ""},
		{"Resent-From", "From: alice@home.example\nResent-From: bob@home.example", record.FromNotOwned, "<bob@home.example>: Resent-From", ""},
		{"Resent-Sender", "From: alice@home.example\nResent-From: alice@home.example\nResent-Sender: bob@home.example", record.FromNotOwned, "<bob@home.example>: Resent-Sender", ""},
		{"redirect", "From: x@victim.example\nSender: x@victim.example\nResent-From: alice@home.example", record.FromRedirected, "forward the message instead", ""},
		{"redirect for another", "From: x@victim.example\nResent-From: bob@home.example", record.FromNotOwned, "<x@victim.example>: From", ""},
		{"percent hack", "From: ceo%victim.example@home.example", record.FromNotOwned, "<ceo%victim.example@home.example>: From", ""},
		{"quoted routing", `From: "ceo@home.example"@catch.example`, record.FromNotOwned, "From", ""},
		{"unquoted name", "From: ceo@home.example <alice@home.example>", record.FromNotOwned, "<ceo@home.example>: From", ""},
		{"behind the brackets", "From: <alice@home.example> ceo@home.example", record.FromNotOwned, "<ceo@home.example>: From", ""},
		{"two in brackets", "From: <alice@home.example><ceo@home.example>", record.FromNotOwned, "<ceo@home.example>: From", ""},
		{"quoted address beside brackets", `From: "ceo@home.example" [x <alice@home.example>`, record.FromNotOwned, "<ceo@home.example>: From", ""},
		{"encoded address", "From: =?utf-8?q?=3Cceo=40home.example=3E?=, alice@home.example", record.FromNotOwned, "<ceo@home.example>: From", ""},
		{"odd field name", "From\t: bob@home.example", record.FromNotOwned, "<bob@home.example>: From", ""},
		{"no From, other sender", "Subject: x", record.FromNotOwned, "<ceo@home.example>: From address rejected: not owned by user alice@home.example (the message has no From field", ""},

		{"several", "From: alice@home.example\nFROM: alice@home.example", record.FromSeveral, "several From fields", ""},
		{"several, one odd", "From: alice@home.example\nFrom : bob@home.example", record.FromSeveral, "several From fields", ""},
		{"empty", "From: ", record.FromUnreadable, "From field rejected", ""},
		{"null", "From: <>", record.FromUnreadable, "From field rejected", ""},
		{"bare word", "From: alice", record.FromUnreadable, "From field rejected", ""},
		{"group of none", "From: undisclosed:;", record.FromUnreadable, "From field rejected", ""},
		{"literal", "From: alice@home.example, bob@[192.0.2.1]", record.FromUnreadable, "From field rejected", ""},
		{"route", "From: <@home.example:alice@home.example>", record.FromUnreadable, "From field rejected", ""},
		{"space in the local part", "From: <b alice@home.example>", record.FromUnreadable, "From field rejected", ""},
		{"control character", "From: <bob\x01alice@home.example>", record.FromUnreadable, "From field rejected", ""},
		{"domain without a user", "From: @victim.example <alice@home.example>", record.FromUnreadable, "From field rejected", ""},
		{"cut domain", "From: alice@home.example\x01.victim.example", record.FromUnreadable, "From field rejected", ""},
		{"bare Sender", "From: alice@home.example\nSender: root", record.FromUnreadable, "Sender field rejected", ""},

		{"display name", `From: "ceo@home.example" <alice@home.example>`, self, "", "ceo@home.example"},
		{"own address as name", `From: "info@home.example" <alice@home.example>`, self, "", ""},
		{"comment", "From: alice@home.example (ceo@home.example)", self, "", "ceo@home.example"},
		{"encoded-word", "From: =?utf-8?b?Y2VvQGhvbWUuZXhhbXBsZQ==?= <alice@home.example>", self, "", "ceo@home.example"},
		{"look-alike", "From: \"ceo\uff20victim.example\" <alice@home.example>", self, "", "ceo@victim.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := FromOwners{Judge: testJudge(t)}
			r, err := f.Decide(t.Context(), ownerOfAll, mailaddr.Parse("ceo@home.example"), header(tt.header))
			if err != nil {
				t.Fatal(err)
			}
			if r.Reason != tt.reason || r.Refused != (tt.text != "") || !strings.Contains(r.Text, tt.text) || strings.Join(r.Display, " ") != tt.display {
				t.Errorf("reason %s, refused %v with %q, shows %q", r.Reason, r.Refused, r.Text, r.Display)
			}
			if r, _ := f.Decide(t.Context(), "root@home.example", mailaddr.Address{}, header(tt.header)); r.Refused || r.Reason != record.OwnerExempt {
				t.Errorf("--owner-exempt: %s, refused %v", r.Reason, r.Refused)
			}
			f.RefuseDisplay = true
			strict, _ := f.Decide(t.Context(), ownerOfAll, mailaddr.Parse("ceo@home.example"), header(tt.header))
			if refused := tt.text != "" || tt.display != ""; strict.Refused != refused || refused && !strings.Contains(strict.Text, tt.display) {
				t.Errorf("--from-display reject: refused %v with %q", strict.Refused, strict.Text)
			}
		})
	}
}

// Text that --from-display reject has to see, and could be kept from.
func TestFromDisplayIsComplete(t *testing.T) {
	var own strings.Builder
	for i := range 60 {
		fmt.Fprintf(&own, "alice+%d@home.example ", i)
	}
	for name, text := range map[string]string{
		"behind many own addresses": "From: (" + own.String() + ") \"ceo@home.example\" <alice@home.example>",
		"in Sender, without From":   "Sender: \"ceo@home.example\" <alice@home.example>",
	} {
		for _, exempt := range []bool{false, true} {
			f := FromOwners{Judge: testJudge(t), RefuseDisplay: true, Exempt: func(context.Context, string) (Exemption, error) {
				return Exemption{Display: exempt}, nil
			}}
			r, err := f.Decide(t.Context(), ownerOfAll, mailaddr.Parse(ownerOfAll), header(text))
			if err != nil || r.Refused == exempt || r.Refused && (r.Reason != record.FromDisplay || r.Text == "") {
				t.Errorf("%s, exempt %v: refused %v, reason %s, %q, %v", name, exempt, r.Refused, r.Reason, r.Text, err)
			}
		}
	}
}

func TestFromExemptions(t *testing.T) {
	const (
		other    = "From: ceo@home.example"
		several  = "From: alice@home.example\nFrom: alice@home.example"
		redirect = "From: x@victim.example\nResent-From: alice@home.example"
		display  = `From: "ceo@home.example" <alice@home.example>`
	)
	all := []string{other, several, redirect, display}
	for _, tt := range []struct {
		name    string
		exempt  Exemption
		allowed []string
	}{
		{"nothing", Exemption{}, nil},
		{"any", Exemption{Any: true}, all},
		{"redirect", Exemption{Redirect: true}, []string{redirect}},
		{"display", Exemption{Display: true}, []string{display}},
		{"address", Exemption{Addresses: []string{"ceo@home.example"}}, []string{other, display}},
		{"domain", Exemption{Domains: []string{"victim.example"}}, []string{redirect}},
		{"problem", Exemption{Problem: errTables}, nil},
	} {
		for _, text := range all {
			f := FromOwners{Judge: testJudge(t), RefuseDisplay: true, Exempt: func(_ context.Context, login string) (Exemption, error) {
				if login != ownerOfAll {
					t.Errorf("asked for %q", login)
				}
				return tt.exempt, nil
			}}
			r, err := f.Decide(t.Context(), ownerOfAll, mailaddr.Address{}, header(text))
			if want := slices.Contains(tt.allowed, text); err != nil || r.Refused == want || !errors.Is(r.Problem, tt.exempt.Problem) {
				t.Errorf("%s: %q: refused %v (%s), %v", tt.name, text, r.Refused, r.Reason, err)
			}
		}
	}
}

func TestFromOwnersUnavailable(t *testing.T) {
	f := FromOwners{Judge: &ownership.Judge{Owners: failing{}}}
	if _, err := f.Decide(t.Context(), ownerOfAll, mailaddr.Address{}, header("From: alice@home.example")); !errors.Is(err, errTables) {
		t.Errorf("owners: %v", err)
	}
	f = FromOwners{Judge: testJudge(t), Exempt: func(context.Context, string) (Exemption, error) { return Exemption{}, errTables }}
	if r, err := f.Decide(t.Context(), ownerOfAll, mailaddr.Address{}, header("From: alice@home.example")); err != nil || r.Refused {
		t.Errorf("exemptions that are not needed: %v", err)
	}
	for _, text := range []string{"From: bob@home.example", "From: alice@home.example\nFrom: alice@home.example"} {
		if _, err := f.Decide(t.Context(), ownerOfAll, mailaddr.Address{}, header(text)); !errors.Is(err, errTables) {
			t.Errorf("%q, exemptions: %v", text, err)
		}
	}
}

// The number of addresses that are looked up is bounded.
func TestFromOwnersAsksABoundedNumber(t *testing.T) {
	var b strings.Builder
	b.WriteString("From: ")
	for i := range maxAsked + 1 {
		b.WriteString(strings.Repeat("x", 1+i%50) + strings.Repeat("y", 1+i/50) + "@catch.example, ")
	}
	f := FromOwners{Judge: testJudge(t)}
	r, err := f.Decide(t.Context(), ownerOfAll, mailaddr.Address{}, header(b.String()))
	if err != nil || !r.Refused || !strings.Contains(r.Text, "too many addresses") {
		t.Errorf("%v, %+v", err, r)
	}
}

// Mail that passes shows only addresses of the login, to any reader.
func FuzzFromOwners(f *testing.F) {
	for _, text := range []string{
		"alice@home.example", "ceo@home.example <alice@home.example>", "\"ceo@home.example\" <alice@home.example>",
		"a <alice@home.example>, b", "alice@home.example, \"a b\" <info@home.example>", "g: alice@home.example, ceo@home.example;", "alice(x)@(y)home . example (ceo@home.example)", "=?utf-8?q?x?= <alice@home.example>", `"x"@catch.example`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, from string) {
		owners := FromOwners{Judge: testJudge(t), RefuseDisplay: true}
		r, err := owners.Decide(t.Context(), ownerOfAll, mailaddr.Address{}, []Field{{Name: "From", Value: from}})
		if err != nil {
			t.Fatal(err)
		}
		shown, _ := author.Shown(from)
		// Another reader's addresses count too.
		if list, err := stdmail.ParseAddressList(from); err == nil {
			for _, a := range list {
				shown = append(shown, a.Address)
			}
		}
		for _, address := range shown {
			if ruling, _ := owners.Judge.Decide(t.Context(), mailaddr.Parse(address), ownerOfAll); !r.Refused && ruling.Kind != ownership.Allowed {
				t.Errorf("%q passes and shows %s", from, address)
			}
		}
	})
}

func BenchmarkFromOwners(b *testing.B) {
	table, err := postmap.Open(ownerTable, postmap.Options{})
	if err != nil {
		b.Fatal(err)
	}
	owners, err := ownership.New(ownership.Config{Owners: []postmap.Table{table}, SelfOwned: true, Delimiters: "+"})
	if err != nil {
		b.Fatal(err)
	}
	f := FromOwners{Judge: &ownership.Judge{Owners: owners, Rewriting: &mailaddr.Rewriting{}}}
	fields := header("Date: x\nTo: x@away.example\nSubject: x\nMessage-ID: <x>\nMIME-Version: 1.0\nContent-Type: text/plain\nX-Mailer: x\nFrom: Alice <alice@home.example>")
	b.ReportAllocs()
	for b.Loop() {
		if r, err := f.Decide(b.Context(), ownerOfAll, mailaddr.Address{}, fields); err != nil || r.Refused {
			b.Fatal(r, err)
		}
	}
}

// Every reason that lets a mail pass is one that is counted.
func TestFromPassesAreAll(t *testing.T) {
	for _, text := range []string{"From: alice@home.example", "From: info@home.example", "Subject: x"} {
		f := FromOwners{Judge: testJudge(t)}
		r, err := f.Decide(t.Context(), ownerOfAll, mailaddr.Address{}, header(text))
		if err != nil || r.Refused || !slices.Contains(FromPasses(), r.Reason) {
			t.Errorf("%q: %s, %v", text, r.Reason, err)
		}
	}
}
