package checks

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

func owners(t *testing.T, c ownership.Config, tables, aliases string) ownership.Asker {
	t.Helper()
	open := func(specs string) []postmap.Table {
		var out []postmap.Table
		for spec := range strings.FieldsSeq(specs) {
			table, err := postmap.Open(spec, postmap.Options{})
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, table)
		}
		return out
	}
	c.Owners, c.Aliases = open(tables), open(aliases)
	o, err := ownership.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestOwnership(t *testing.T) {
	maps := owners(t, ownership.Config{SelfOwned: true, Delimiters: "+"},
		"inline:{pr@x.example=ann@x.example,@catchall.example=bob@x.example}",
		"inline:{info@x.example=ann@x.example}")
	strict := Ownership{&ownership.Judge{Owners: maps, UnauthenticatedReject: true, NullSenderReject: true}}
	lenient := Ownership{&ownership.Judge{Owners: maps, UnlistedPass: true, Exempt: ownership.NewLogins([]string{"daemon@x.example"}, "")}}
	def := Ownership{&ownership.Judge{Owners: maps}}
	tests := []struct {
		name          string
		check         Ownership
		sender, login string
		kind          policy.Kind
		reason        record.Reason
		text          string
	}{
		{"own address", def, "ann@x.example", "ann@x.example", policy.Pass, record.OwnerSelf, ""},
		{"by map", def, "pr@x.example", "ann@x.example", policy.Pass, record.OwnerOwned, ""},
		{"by alias", def, "info@x.example", "ann@x.example", policy.Pass, record.OwnerOwnedByAlias, ""},
		{"with an extension", def, "pr+june@x.example", "ann@x.example", policy.Pass, record.OwnerOwned, ""},
		{"catch-all", def, "anything@catchall.example", "bob@x.example", policy.Pass, record.OwnerOwned, ""},
		{"case", def, "PR@X.Example", "ANN@x.example", policy.Pass, record.OwnerOwned, ""},
		{"foreign", def, "pr@x.example", "bob@x.example", policy.Reject, record.OwnerNotOwned, "not owned by user bob@x.example"},
		{"unlisted", def, "who@else.example", "bob@x.example", policy.Reject, record.OwnerUnlisted, "not owned by user bob@x.example"},
		{"unlisted may pass", lenient, "who@else.example", "bob@x.example", policy.Pass, record.OwnerUnlisted, ""},
		{"foreign may not", lenient, "pr@x.example", "bob@x.example", policy.Reject, record.OwnerNotOwned, "not owned by user bob@x.example"},
		{"exempt", lenient, "pr@x.example", "Daemon@X.example", policy.Pass, record.OwnerExempt, ""},
		{"no address", def, "a b\x00@", "bob@x.example", policy.Reject, record.OwnerSenderNotAddress, "not owned by user bob@x.example"},
		{"null sender", def, "", "bob@x.example", policy.Pass, record.OwnerNullSender, ""},
		{"null sender refused", strict, "", "bob@x.example", policy.Reject, record.OwnerNullSender, "null sender not allowed for user bob@x.example"},
		{"null sender without login", strict, "", "", policy.None, record.OwnerUnauthenticated, ""},
		{"no login, unlisted", strict, "who@else.example", "", policy.None, record.OwnerUnauthenticated, ""},
		{"no login, listed", strict, "pr@x.example", "", policy.Reject, record.OwnerNotLoggedIn, "not logged in"},
		{"no login, listed, default", def, "pr@x.example", "", policy.None, record.OwnerUnauthenticated, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &policy.Request{State: policy.StateRcpt, Sender: mailaddr.ParseInternal(tt.sender), Login: tt.login}
			v, err := tt.check.Check(t.Context(), r, nil)
			if err != nil || v.Kind != tt.kind || v.Reason != tt.reason || v.Text != tt.text {
				t.Errorf("%s %q %q, %v", v.Kind, v.Reason, v.Text, err)
			}
			if (v.Kind == policy.Reject) != (v.Code == policy.CodeSenderPolicy) {
				t.Errorf("code %v", v.Code)
			}
		})
	}
}

func TestOwnershipStates(t *testing.T) {
	o := Ownership{&ownership.Judge{Owners: owners(t, ownership.Config{}, "", "")}}
	for state := policy.StateOther; state <= policy.StateETRN; state++ {
		r := &policy.Request{State: state, Sender: mailaddr.Parse("a@b.example"), Login: "x"}
		v, err := o.Check(t.Context(), r, nil)
		if err != nil || (v.Kind == policy.Reject) != state.HasSender() {
			t.Errorf("state %d: %s, %v", state, v.Kind, err)
		}
	}
}

func TestOwnershipDetail(t *testing.T) {
	o := Ownership{&ownership.Judge{Owners: owners(t, ownership.Config{}, "inline:{pr@x.example=ann}", "")}}
	for login, want := range map[string]string{
		"ann": "map=inline:{pr@x.example=ann} key=pr@x.example",
		"bob": "map=inline:{pr@x.example=ann} key=pr@x.example owners=ann",
	} {
		v, ruling, err := o.Judge(t.Context(), mailaddr.Parse("pr@x.example"), login)
		if err != nil || v.Detail != want || ruling.Answer.Path.Entry != "ann" {
			t.Errorf("%q, %+v, %v", v.Detail, ruling, err)
		}
	}
}

// The detail contains the aliases on the way, the sender's own first.
func TestOwnershipDetailNamesAliases(t *testing.T) {
	const aliases = "inline:{all@x.example=info@x.example,info@x.example=ann@x.example}"
	o := Ownership{&ownership.Judge{Owners: owners(t, ownership.Config{AliasDepth: 2}, "", aliases)}}
	tests := []struct{ sender, login, want string }{
		{"info@x.example", "ann@x.example", "map=" + aliases + " key=info@x.example"},
		{"all@x.example", "ann@x.example", "map=" + aliases + " key=info@x.example via=all@x.example"},
		{"all@x.example", "bob@x.example", "map=" + aliases + " key=all@x.example owners=info@x.example"},
	}
	for _, tt := range tests {
		v, answer, err := o.Judge(t.Context(), mailaddr.Parse(tt.sender), tt.login)
		if err != nil || v.Detail != tt.want {
			t.Errorf("%s of %s: %q, want %q; %+v, %v", tt.sender, tt.login, v.Detail, tt.want, answer, err)
		}
	}
}

type failing struct {
	answer ownership.Answer
	err    error
}

func (f failing) Check(context.Context, mailaddr.Address, string) (ownership.Answer, error) {
	return f.answer, f.err
}

func TestOwnershipNoAnswer(t *testing.T) {
	for _, err := range []error{context.DeadlineExceeded, errors.New("no route to host")} {
		o := Ownership{&ownership.Judge{Owners: failing{err: err}}}
		v, _, got := o.Judge(t.Context(), mailaddr.Parse("a@b.example"), "x")
		if !errors.Is(got, err) || v.Reason != record.OwnerLookupFailed {
			t.Errorf("%+v, %v", v, got)
		}
	}
}
