package ownership

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap"
)

func TestAliasDepth(t *testing.T) {
	aliases := []postmap.Table{
		table("top@x.org=middle@x.org", "middle@x.org=low@x.org, other@x.org", "loop1@x.org=loop2@x.org", "loop2@x.org=loop1@x.org, self@x.org", "@wild.org=@x.org"),
		table("low@x.org=ann@x.org", "self@x.org=self@x.org", "other@x.org=bob@x.org"),
	}
	for _, c := range []struct {
		depth         int
		sender, login string
		owned         bool
		key           string
		via           []string
	}{
		{0, "low@x.org", "ann@x.org", true, "low@x.org", nil},
		{1, "middle@x.org", "ann@x.org", false, "middle@x.org", nil},
		{2, "middle@x.org", "ann@x.org", true, "low@x.org", []string{"middle@x.org"}},
		{2, "top@x.org", "ann@x.org", false, "top@x.org", nil},
		{3, "top@x.org", "ann@x.org", true, "low@x.org", []string{"top@x.org", "middle@x.org"}},
		{3, "top@x.org", "bob@x.org", true, "other@x.org", []string{"top@x.org", "middle@x.org"}},
		{MaxAliasDepth, "loop1@x.org", "ann@x.org", false, "loop1@x.org", nil},
		{2, "loop1@x.org", "self@x.org", true, "loop2@x.org", []string{"loop1@x.org"}},
		{4, "top@wild.org", "ann@x.org", true, "low@x.org", []string{"@wild.org", "top@x.org", "middle@x.org"}},
		{4, "top@x.org", "", false, "top@x.org", nil},
	} {
		o := newOwners(t, Config{Aliases: aliases, AliasDepth: c.depth})
		a, err := o.Check(t.Context(), mailaddr.Parse(c.sender), c.login)
		if err != nil || a.Owned != c.owned || a.Path.Key != c.key || !slices.Equal(a.Path.Via, c.via) || !a.Listed {
			t.Errorf("%+v: got %+v, %v", c, a, err)
		}
	}
}

func TestAliasDepthErrors(t *testing.T) {
	for _, depth := range []int{-1, MaxAliasDepth + 1} {
		if _, err := New(Config{AliasDepth: depth}); err == nil {
			t.Errorf("depth %d was taken", depth)
		}
	}
	// A failure behind an alias is an error, unless another alias grants the
	// sender.
	broken := table("!=x")
	o := newOwners(t, Config{Aliases: []postmap.Table{table("a@x.org=b@x.org", "b@x.org=ann"), broken}, AliasDepth: 3})
	if a, err := o.Check(t.Context(), mailaddr.Parse("a@x.org"), "ann"); err != nil || !a.Owned {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := o.Check(t.Context(), mailaddr.Parse("a@x.org"), "joe"); !errors.Is(err, errDown) || a.Owned {
		t.Errorf("%+v, %v", a, err)
	}
	// Too many addresses are an error, not a "no".
	var many []string
	for i := range maxFollowed + 5 {
		many = append(many, fmt.Sprintf("wide@x.org=m%d@x.org", i))
	}
	o = newOwners(t, Config{Aliases: []postmap.Table{table(many...)}, AliasDepth: 2})
	if _, err := o.Check(t.Context(), mailaddr.Parse("wide@x.org"), "joe"); !errors.Is(err, errTooMany) {
		t.Error(err)
	}
}
