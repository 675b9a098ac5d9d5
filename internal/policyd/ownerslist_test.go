package policyd

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/postmap"
)

func listOwned(t *testing.T, c *current, args api.OwnersListArgs) (api.OwnersListResult, error) {
	t.Helper()
	text, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	result, err := commands(c)["owners.list"](t.Context(), text, nil)
	if err != nil {
		return api.OwnersListResult{}, err
	}
	return result.(api.OwnersListResult), nil
}

func TestOwnersList(t *testing.T) {
	const aliases = "inline:{info@x.example=ann@x.example,all@x.example=info@x.example,bobs@x.example=bob@x.example}"
	const rules = "static:root@x.example"
	owners := filepath.Join(t.TempDir(), "owners")
	if err := os.WriteFile(owners, []byte("pr@x.example ann@x.example, bob@x.example\n@all.example ann@x.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	table := "hash:" + owners
	a, _ := inForceWith(t, "--checks=ownership", "--owners", table, "--owners", rules, "--owner-aliases", aliases, "--owner-alias-depth=2")
	all := []api.OwnersListEntry{
		{Sender: "ann@x.example", How: "self", Entry: "ann@x.example"},
		{Sender: "@all.example", How: "map", Map: table, Entry: "ann@x.example", Where: owners + ":2"},
		{Sender: "pr@x.example", How: "map", Map: table, Entry: "ann@x.example, bob@x.example", Where: owners + ":1"},
		{Sender: "all@x.example", How: "alias", Map: aliases, Entry: "ann@x.example", Via: []string{"info@x.example"}},
		{Sender: "info@x.example", How: "alias", Map: aliases, Entry: "ann@x.example"},
	}
	tests := []struct {
		name string
		args api.OwnersListArgs
		want []api.OwnersListEntry
	}{
		{"what a login owns", api.OwnersListArgs{Login: "ann@x.example"}, all},
		{"nothing but itself", api.OwnersListArgs{Login: "eve@x.example"}, []api.OwnersListEntry{{Sender: "eve@x.example", How: "self", Entry: "eve@x.example"}}},
		{"nothing", api.OwnersListArgs{Login: "eve"}, nil},
		{"senders that are asked for", api.OwnersListArgs{Login: "root@x.example", Senders: []string{"who@else.example", ""}}, []api.OwnersListEntry{
			{Sender: "root@x.example", How: "self", Entry: "root@x.example"},
			{Sender: "who@else.example", How: "map", Map: rules, Entry: "root@x.example"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := listOwned(t, a, tt.args)
			if err != nil || got.Truncated || !slices.Equal(got.Unread, []string{rules}) {
				t.Errorf("%+v, %v", got, err)
			}
			if !sameEntries(got.Entries, tt.want) {
				t.Errorf("got\n%+v, want\n%+v", got.Entries, tt.want)
			}
		})
	}
}

// sameEntries compares in any order: the tables' own is not told.
func sameEntries(got, want []api.OwnersListEntry) bool {
	bySender := func(a, b api.OwnersListEntry) int { return strings.Compare(a.Sender, b.Sender) }
	got, want = slices.SortedFunc(slices.Values(got), bySender), slices.SortedFunc(slices.Values(want), bySender)
	return reflect.DeepEqual(got, want)
}

// The way from a sender to its entry reads the same whether the tables were
// gone through or the sender was asked for.
func TestOwnersListNamesTheSameWayForCandidates(t *testing.T) {
	a, _ := inForceWith(t, "--checks=ownership", "--owners=static:root@x.example", "--owner-self=false", "--owner-alias-depth=3",
		"--owner-aliases=inline:{a@x.example=b@x.example,b@x.example=c@x.example,c@x.example=ann}")
	got, err := listOwned(t, a, api.OwnersListArgs{Login: "ann", Senders: []string{"a@x.example", "b@x.example", "c@x.example"}})
	if err != nil || len(got.Entries) != 6 || !sameEntries(got.Entries[:3], got.Entries[3:]) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, e := range got.Entries {
		want := map[string][]string{"a@x.example": {"b@x.example", "c@x.example"}, "b@x.example": {"c@x.example"}}[e.Sender]
		if !slices.Equal(e.Via, want) {
			t.Errorf("%s via %q, want %q", e.Sender, e.Via, want)
		}
	}
}

func TestOwnersListRefuses(t *testing.T) {
	a, _ := inForceWith(t, "--checks=ownership", "--owners=static:x")
	for name, args := range map[string]api.OwnersListArgs{
		"no login":         {},
		"too many senders": {Login: "ann", Senders: make([]string, maxCandidates+1)},
	} {
		var refused *admin.Error
		if _, err := listOwned(t, a, args); !errors.As(err, &refused) || refused.Code != admin.CodeBadArgs {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := listOwned(t, a, api.OwnersListArgs{Login: "ann", Senders: make([]string, maxCandidates)}); err != nil {
		t.Error(err)
	}
	without, _ := inForceWith(t, "--checks=dnsbl", "--resolver=127.0.0.1")
	if _, err := listOwned(t, without, api.OwnersListArgs{Login: "ann"}); err == nil || !strings.Contains(err.Error(), "add ownership to checks") {
		t.Errorf("without the check: %v", err)
	}
}

// scripted says what it was told to.
type scripted struct {
	listing         ownership.Listing
	listErr, askErr error
}

func (s scripted) List(context.Context, string) (ownership.Listing, error) {
	return s.listing, s.listErr
}

func (s scripted) Check(context.Context, mailaddr.Address, string) (ownership.Answer, error) {
	return ownership.Answer{}, s.askErr
}

func TestOwnersListWhenTablesFail(t *testing.T) {
	a, s := inForceWith(t, "--checks=ownership", "--owners=static:x")
	down := errors.New("no route to host")
	for name, owners := range map[string]scripted{"listing": {listErr: down}, "asking": {askErr: down}} {
		partOf[*ownershipPart](t, s).check.Rules.Owners = owners
		if _, err := listOwned(t, a, api.OwnersListArgs{Login: "ann", Senders: []string{"a@b.example"}}); !errors.Is(err, down) {
			t.Errorf("%s: %v", name, err)
		}
	}
	partOf[*ownershipPart](t, s).check.Rules.Owners = scripted{listing: ownership.Listing{Truncated: true}}
	if got, err := listOwned(t, a, api.OwnersListArgs{Login: "ann"}); err != nil || !got.Truncated || got.Entries == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// A reload keeps the tables whose files did not change, with what they have
// learnt, and reads the others again.
func TestReloadKeepsTables(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		written := time.Now().Add(-time.Hour) // long enough ago to be whole
		if err := errors.Join(os.WriteFile(path(name), []byte(text), 0o600), os.Chtimes(path(name), written, written)); err != nil {
			t.Fatal(err)
		}
	}
	write("same", "a@x.example ann\n")
	write("other", "b@x.example bob\n")
	c := newCurrent()
	defer c.Close()
	load := func(args ...string) []postmap.Table {
		t.Helper()
		l, err := loadInto(c, quiet(), append([]string{"--config=", "--checks=ownership", "--owners=hash:" + path("same"), "--owners=hash:" + path("other")}, args...), nil)
		if err != nil {
			t.Fatal(err)
		}
		l.apply(c)
		return partOf[*ownershipPart](t, l.state).opened.Tables
	}
	first, second := load(), load()
	for second[0].Source != first[0].Source { // files this fresh are read again
		first, second = second, load()
	}
	write("other", "b@x.example eve\n")
	third := load()
	if third[0].Source != second[0].Source || third[1].Source == second[1].Source {
		t.Errorf("tables %v after %v", third, second)
	}
	if fourth := load("--owners-last-known=1h"); fourth[0].Source == third[0].Source {
		t.Error("a table was kept whose settings changed")
	}
}
