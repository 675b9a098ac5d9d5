package ownership

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/record"
)

// The sender is judged in the form that Postfix will queue. The address that
// its local part leads to is judged too.
func TestJudgeCompletes(t *testing.T) {
	catchAll := newOwners(t, Config{Owners: one("@example.org=alice", "ceo@victim.example=ceo", "both@victim.example=alice", "ceo@example.org=ceo", "root=ceo"), LoginDomain: "example.org", LocalDomains: []string{"example.org"}, Delimiters: "+"})
	judge := Judge{Owners: catchAll, Rewriting: &mailaddr.Rewriting{
		PercentHack: true, SwapBangpath: true, AppendAtMyorigin: true, Myorigin: "example.org", Local: map[string]bool{"example.org": true},
	}}
	unlistedPass, noOrigin := judge, judge
	unlistedPass.UnlistedPass = true
	noOrigin.Rewriting = &mailaddr.Rewriting{PercentHack: true, SwapBangpath: true, AppendAtMyorigin: true}
	inbound := judge
	inbound.UnauthenticatedReject = true
	for _, c := range []struct {
		name          string
		judge         Judge
		sender, login string
		kind          Kind
		reason        record.Reason
		detail        string
	}{
		{"owned", judge, "x@example.org", "alice", Allowed, record.OwnerOwned, "map="},
		{"percent hack", judge, "ceo%victim.example", "alice", Refused, record.OwnerNotOwned, "queued=ceo@victim.example map="},
		{"bang path", judge, "victim.example!ceo", "alice", Refused, record.OwnerNotOwned, "queued=ceo@victim.example map="},
		{"route", judge, "@a.example:ceo@victim.example", "alice", Refused, record.OwnerNotOwned, "queued=ceo@victim.example map="},
		{"bare", judge, "x", "alice", Allowed, record.OwnerOwned, "queued=x@example.org map="},
		{"final dot", judge, "x@example.org.", "alice", Allowed, record.OwnerOwned, "map="},
		{"leads elsewhere", judge, "ceo%victim.example@example.org", "alice", Refused, record.OwnerNotOwned, "queued=ceo@victim.example map="},
		{"quoted at", judge, "both@victim.example@other.example", "alice", Refused, record.OwnerUnlisted, ""},
		{"leads to an owned one", judge, "both%victim.example@example.org", "alice", Allowed, record.OwnerOwned, "queued=both@victim.example map="},
		{"unlisted may pass, this is listed", unlistedPass, "ceo%example.org", "mallory", Refused, record.OwnerNotOwned, "queued=ceo@example.org map="},
		{"unlisted may pass, no address", unlistedPass, "ceo@victim..example", "mallory", Refused, record.OwnerSenderNotAddress, ""},
		{"unlisted may pass, routing in no address", unlistedPass, "ceo%victim.example@", "mallory", Refused, record.OwnerSenderUnclear, "unclear: address is not valid"},
		{"origin not known", noOrigin, "bob", "bob", Refused, record.OwnerSenderUnclear, "unclear: " + string(mailaddr.ErrNoOrigin)},
		{"literal", judge, "ceo%victim.example@[192.0.2.1]", "alice", Refused, record.OwnerSenderUnclear, "unclear: " + string(mailaddr.ErrRouting)},
		{"without login", inbound, "ceo%victim.example", "", Refused, record.OwnerNotLoggedIn, "queued=ceo@victim.example map="},
		{"without login, none of our business", judge, "bob", "", NotJudged, record.OwnerUnauthenticated, ""},
		{"without login, no address", inbound, "ceo\x01@example.org", "", Refused, record.OwnerSenderNotAddress, ""},
		{"without login, an address without owner", inbound, "ceo@else.example", "", NotJudged, record.OwnerUnauthenticated, ""},
		{"without login, a local user at a literal", inbound, "root@[192.0.2.1]", "", Refused, record.OwnerNotLoggedIn, "queued=root map="},
		{"without login, another user at a literal", inbound, "who@[192.0.2.1]", "", NotJudged, record.OwnerUnauthenticated, ""},
		{"unlisted may pass, a local user at a literal", unlistedPass, "root+x@[IPv6:2001:db8::1]", "alice", Refused, record.OwnerNotOwned, "queued=root+x map="},
		{"unlisted may pass, the own user at a literal", unlistedPass, "root@[192.0.2.1]", "ceo", Allowed, record.OwnerUnlisted, ""},
		{"unlisted may pass, another user at a literal", unlistedPass, "who@[192.0.2.1]", "ceo", Allowed, record.OwnerUnlisted, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := c.judge.Decide(t.Context(), mailaddr.ParseInternal(c.sender), c.login)
			if err != nil || r.Kind != c.kind || r.Reason != c.reason {
				t.Errorf("%d %s, %v; want %d %s", r.Kind, r.Reason, err, c.kind, c.reason)
			}
			if detail := r.Detail(); !strings.HasPrefix(detail, c.detail) || c.detail == "" && detail != "" {
				t.Errorf("detail %q, want %q", detail, c.detail)
			}
			if (r.Kind == Refused) != (r.Text != "") {
				t.Errorf("text %q", r.Text)
			}
		})
	}
}

// Logins are compared without case, as A-labels, and with the login domain.
func TestExemptLogins(t *testing.T) {
	exempt := NewLogins([]string{"Root", "daemon@bücher.example", "jane@x.example"}, "x.example")
	for login, want := range map[string]bool{
		"root": true, "ROOT@x.example": true, "jane": true, "daemon@xn--bcher-kva.example": true, "Daemon@BÜCHER.example": true,
		"": false, "root@y.example": false, "daemon": false,
	} {
		if got := exempt.Has(login); got != want {
			t.Errorf("%q: %v", login, got)
		}
	}
	if (Logins{}).Has("root") {
		t.Error("no logins are exempt")
	}
}

// The first table that lists the sender decides alone.
func TestFirstMatch(t *testing.T) {
	front, behind := pattern("boss@x.org=nobody-owns-this"), table("boss@x.org=boss@x.org", "pr@x.org=ann", "@x.org=bob")
	tables := []postmap.Table{front, behind, table("pr@x.org=eve", "pr+june@x.org=eve", "info@x.org=ann")}
	config := Config{Owners: tables, Aliases: one("info@x.org=bob", "sales@y.org=ann@x.org", "all@y.org=sales@y.org"), SelfOwned: true, Delimiters: "+", FirstMatch: true, AliasDepth: 2}
	for _, c := range []struct {
		name, sender, login string
		owned, listed       bool
		how                 How
		key                 string
	}{
		{"taken away in front", "boss@x.org", "boss@x.org", false, true, "", "boss@x.org"},
		{"first entry grants", "pr@x.org", "ann", true, true, ByMap, "pr@x.org"},
		{"later entry adds nothing", "pr@x.org", "eve", false, true, "", "pr@x.org"},
		{"whole address before its parts, whatever the table", "pr+june@x.org", "eve", true, true, ByMap, "pr+june@x.org"},
		{"whole address before the domain", "info@x.org", "ann", true, true, ByMap, "info@x.org"},
		{"the domain", "other@x.org", "bob", true, true, ByMap, "@x.org"},
		{"an alias adds nothing to what is listed", "info@x.org", "bob", false, true, "", "info@x.org"},
		{"own address yields to the domain", "eve@x.org", "eve@x.org", false, true, "", "@x.org"},
		{"alias where no table lists", "sales@y.org", "ann@x.org", true, true, ByAlias, "sales@y.org"},
		{"alias of an alias", "all@y.org", "ann@x.org", true, true, ByAlias, "sales@y.org"},
		{"own address where no table lists", "eve@y.org", "eve@y.org", true, false, BySelf, ""},
		{"unlisted", "who@y.org", "eve@y.org", false, false, "", ""},
		{"patterns see whole addresses only", "boss+x@x.org", "boss@x.org", true, true, ByMap, "boss@x.org"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := newOwners(t, config).Check(t.Context(), mailaddr.ParseInternal(c.sender), c.login)
			if err != nil || got.Owned != c.owned || got.Listed != c.listed || got.How != c.how || got.Path.Key != c.key {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// The answer of a table that failed is unknown, so no later one decides.
func TestFirstMatchStopsAtFailure(t *testing.T) {
	grants, down := table("a@x.org=jane"), table("!=")
	for name, c := range map[string]struct {
		tables []postmap.Table
		owned  bool
	}{"before": {[]postmap.Table{down, grants}, false}, "after": {[]postmap.Table{grants, down}, true}} {
		got, err := newOwners(t, Config{Owners: c.tables, SelfOwned: true, FirstMatch: true}).Check(t.Context(), mailaddr.Parse("a@x.org"), "jane")
		if got.Owned != c.owned || (err == nil) != c.owned {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
