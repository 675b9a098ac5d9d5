package mailaddr

import (
	"errors"
	"testing"
)

// postfixDefaults are Postfix's own settings for mail.example, whose local domain
// is local.example.
func postfixDefaults() *Rewriting {
	return &Rewriting{
		PercentHack: true, SwapBangpath: true, AppendAtMyorigin: true,
		Myorigin: "origin.example", Mydomain: "my.example", Local: map[string]bool{"local.example": true},
	}
}

func TestComplete(t *testing.T) {
	dots, plain := postfixDefaults(), postfixDefaults()
	dots.AppendDotMydomain = true
	plain.PercentHack, plain.SwapBangpath = false, false
	for _, c := range []struct {
		name, sender   string
		rewriting      *Rewriting
		queued, routed string
	}{
		{"null sender", "", postfixDefaults(), "", ""},
		{"complete", "ceo@victim.example", postfixDefaults(), "ceo@victim.example", "ceo@victim.example"},
		{"percent hack", "ceo%victim.example", postfixDefaults(), "ceo@victim.example", "ceo@victim.example"},
		{"last percent sign", "ceo%a.example%b.example", postfixDefaults(), "ceo%a.example@b.example", "ceo%a.example@b.example"},
		{"percent hack off", "ceo%victim.example", plain, "ceo%victim.example@origin.example", "ceo%victim.example@origin.example"},
		{"bang path", "victim.example!ceo", postfixDefaults(), "ceo@victim.example", "ceo@victim.example"},
		{"first bang", "a.example!b.example!ceo", postfixDefaults(), "b.example!ceo@a.example", "b.example!ceo@a.example"},
		{"bang before percent", "a.example!ceo%b.example", postfixDefaults(), "ceo%b.example@a.example", "ceo%b.example@a.example"},
		{"bang path off", "victim.example!ceo", plain, "victim.example!ceo@origin.example", "victim.example!ceo@origin.example"},
		{"origin", "bob", postfixDefaults(), "bob@origin.example", "bob@origin.example"},
		{"quoted, no operator", `a b%victim.example`, postfixDefaults(), `"a b%victim.example"@origin.example`, `"a b"@victim.example`},
		{"final dot", "bob@host.example.", postfixDefaults(), "bob@host.example", "bob@host.example"},
		{"percent and dot", "ceo%victim.example.", postfixDefaults(), `"ceo%victim.example."@origin.example`, "ceo@victim.example"},
		{"host", "bob@host", postfixDefaults(), "bob@host", "bob@host"},
		{"host and mydomain", "bob@host", dots, "bob@host.my.example", "bob@host.my.example"},
		{"host with a dot", "bob@host.", dots, "bob@host", "bob@host"},
		{"percent, host, mydomain", "bob%host", dots, "bob@host.my.example", "bob@host.my.example"},
		{"literal and mydomain", "bob@[192.0.2.1]", dots, "bob@[192.0.2.1]", "bob@[192.0.2.1]"},
		{"route", "@a.example,@b.example:ceo@victim.example", postfixDefaults(), "ceo@victim.example", "ceo@victim.example"},
		{"route to an operator", "@a.example:ceo%victim.example", postfixDefaults(), "ceo@victim.example", "ceo@victim.example"},
		{"local domain", "ceo%victim.example@local.example", postfixDefaults(), "ceo%victim.example@local.example", "ceo@victim.example"},
		{"local domain, bang", "victim.example!ceo@local.example", postfixDefaults(), "victim.example!ceo@local.example", "ceo@victim.example"},
		{"local twice", "ceo%victim.example%local.example@local.example", postfixDefaults(), "ceo%victim.example%local.example@local.example", "ceo@victim.example"},
		{"not a local domain", "ceo%victim.example@other.example", postfixDefaults(), "ceo%victim.example@other.example", "ceo%victim.example@other.example"},
		{"at in the local part", "ceo@victim.example@other.example", postfixDefaults(), `"ceo@victim.example"@other.example`, "ceo@victim.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.rewriting.Complete(ParseInternal(c.sender))
			if err != nil || got.Queued.String() != c.queued || got.Routed.String() != c.routed {
				t.Errorf("%q is %q and %q, %v; want %q and %q", c.sender, got.Queued, got.Routed, err, c.queued, c.routed)
			}
		})
	}
}

func TestCompleteRefuses(t *testing.T) {
	noOrigin, noSuffix := postfixDefaults(), postfixDefaults()
	noOrigin.Myorigin = ""
	noSuffix.AppendDotMydomain, noSuffix.Mydomain = true, ""
	for _, c := range []struct {
		name, sender string
		rewriting    *Rewriting
		want         error
	}{
		{"origin not known", "bob", noOrigin, ErrNoOrigin},
		{"nothing is appended", "bob", &Rewriting{Myorigin: "origin.example"}, ErrNoOrigin},
		{"mydomain not known", "bob@host", noSuffix, ErrNoSuffix},
		{"literal", "ceo%victim.example@[192.0.2.1]", postfixDefaults(), ErrRouting},
		{"bang in quotes", "victim.example!c o@local.example", postfixDefaults(), ErrRouting},
		{"route after a route", "@a.example:@b.example:ceo@victim.example", postfixDefaults(), ErrRouting},
		{"no user", "%victim.example", postfixDefaults(), ErrEmptyLocal},
		{"no domain after the operator", "victim.example!", postfixDefaults(), ErrEmptyLocal},
		{"no domain", "bob%", postfixDefaults(), ErrEmptyDomain},
		{"operator in the domain", "bob%a!b", &Rewriting{PercentHack: true}, ErrDomainChar},
		{"not an address", "ceo@victim..example", postfixDefaults(), ErrLabel},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := c.rewriting.Complete(ParseInternal(c.sender)); !errors.Is(err, c.want) {
				t.Errorf("%q is %q, %v; want %v", c.sender, got.Queued, err, c.want)
			}
		})
	}
}

// FuzzComplete checks that any sender becomes a full address or an error, and
// that a second completion changes nothing.
func FuzzComplete(f *testing.F) {
	for _, sender := range []string{"ceo%victim.example", "a!b!c", `"a@b"@local.example`, "@a:b%c@d", "bob.", "x%y@[1.2.3.4]", "ü%bücher.example", "a@b@c@local.example"} {
		f.Add(sender, true)
	}
	f.Fuzz(func(t *testing.T, sender string, dots bool) {
		r := postfixDefaults()
		r.AppendDotMydomain = dots
		c, err := r.Complete(ParseInternal(sender))
		if err != nil {
			return
		}
		if c.Queued.IsNull() != (sender == "" || sender == "<>") {
			t.Fatalf("%q became the null sender", sender)
		}
		if c.Queued.IsBare() || c.Routed.IsBare() || c.Queued.Err() != nil || c.Routed.Err() != nil {
			t.Fatalf("%q is %+v", sender, c)
		}
		// With append_dot_mydomain "user@host." is user@host, and that is not final.
		if again, err := r.Complete(c.Routed); !dots && (err != nil || again.Queued.Key() != c.Routed.Key()) {
			t.Fatalf("%q leads to %q, and that is %q, %v", sender, c.Routed, again.Queued, err)
		}
	})
}
