package ownership

import (
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postmap"
)

// listable is a fake that lists its keys.
type listable struct{ *fake }

func (l listable) Keys() (iter.Seq[string], bool) {
	return slices.Values(slices.Sorted(maps.Keys(l.entries))), true
}

func listableTable(entries ...string) postmap.Table {
	t := table(entries...)
	t.Source = listable{t.Source.(*fake)}
	return t
}

func TestList(t *testing.T) {
	server := table("x@x.org=ann@x.org")
	o := newOwners(t, Config{
		Owners:     []postmap.Table{listableTable("pr@x.org=ann@x.org,bob@x.org", "@all.org=ann@x.org", "b@x.org=bob@x.org"), server, pattern("a")},
		Aliases:    []postmap.Table{listableTable("info@x.org=ann@x.org", "deep@x.org=info@x.org", "bobs@x.org=bob@x.org", "@w.org=@x.org")},
		AliasDepth: 2, SelfOwned: true,
	})
	l, err := o.List(t.Context(), "Ann@x.org")
	if err != nil || l.Truncated || len(l.Unread) != 2 || l.Unread[0].Spec != server.Spec {
		t.Errorf("%+v, %v", l, err)
	}
	var got []string
	for _, e := range l.Entries {
		got = append(got, string(e.How)+" "+strings.Join(append([]string{e.Path.Key}, e.Path.Via...), "<"))
	}
	if text := strings.Join(got, ", "); text != "self Ann@x.org, map @all.org, map pr@x.org, alias deep@x.org<info@x.org, alias info@x.org" {
		t.Error(text)
	}
	if l, err := o.List(t.Context(), ""); err != nil || len(l.Entries) > 0 {
		t.Errorf("an empty login owns %+v, %v", l, err)
	}
	o = newOwners(t, Config{Owners: []postmap.Table{listableTable("!=x")}})
	if _, err := o.List(t.Context(), "ann"); !errors.Is(err, errDown) {
		t.Error(err)
	}
}
