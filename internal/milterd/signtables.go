package milterd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/internal/service/tables"
	"github.com/postern-mail/postern/milter/sign"
)

// dkimTables are the settings for keys, senders and options in Postfix tables.
type dkimTables struct {
	DKIMOptionsTable   string
	DKIMTableTimeout   time.Duration
	DKIMTableCacheTTL  time.Duration
	DKIMTableCacheSize int
}

const (
	defaultTableTTL  = 5 * time.Minute
	defaultTableSize = 2000 // answers; each may be a key
	// tableNegativeTTL is how long a domain without a key is remembered. It is short, so
	// that a new key is used soon.
	tableNegativeTTL = 30 * time.Second
	// tableStale is how long a key still signs while the servers are down.
	tableStale = 24 * time.Hour
)

func (o *dkimTables) bind(fs *pflag.FlagSet) {
	fs.StringVar(&o.DKIMOptionsTable, "dkim-options-table", "", "Postfix `table` of what is different for an author's domain: sign=no, expire=14d, headers=From:Subject")
	config.Duration(fs, &o.DKIMTableTimeout, "dkim-table-timeout", remote.DefaultTimeout, 10*time.Millisecond, time.Minute, "longest time for one question to the servers of such a table")
	config.Duration(fs, &o.DKIMTableCacheTTL, "dkim-table-cache-ttl", defaultTableTTL, 0, 24*time.Hour, "how long an entry of a server's table is remembered; 0 asks each time")
	config.Int(fs, &o.DKIMTableCacheSize, "dkim-table-cache-size", defaultTableSize, 16, 100_000, "most remembered answers of one table")
}

// KeyTables opens the Postfix tables of keys and senders that settings name, for code
// that looks at the keys of a domain without a daemon. tables is nil if there are none;
// closeAll must be called then too.
func KeyTables(keys, senders string, group int) (tables *sign.Tables, closeAll func() error, err error) {
	var opened []postmap.Table
	closeAll = func() error { return postmap.Close(opened...) }
	if !isPostfixTable(keys) {
		return nil, closeAll, nil
	}
	tables = &sign.Tables{Group: group}
	for _, one := range []struct {
		spec string
		to   **sign.LookupTable
	}{{keys, &tables.Keys}, {senders, &tables.Senders}} {
		if one.spec == "" {
			continue
		}
		table, err := postmap.Open(one.spec, postmap.Options{})
		if err != nil {
			return nil, closeAll, errors.New(hideKey(err.Error(), one.spec))
		}
		opened = append(opened, table)
		*one.to = lookupTable(table)
	}
	return tables, closeAll, nil
}

// FindKeys has src name the keys that the daemon's file of settings names. The name of a
// credential of systemd's, which only the daemon can read, is left out.
func FindKeys(src *sign.KeySource, settings string) error {
	file, err := config.ReadDocument(settings)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	folder := src.Dir
	for name, to := range map[string]*string{"dkim-keys": &src.Dir, "dkim-key-table": &src.KeyTable, "dkim-signing-table": &src.SigningTable} {
		if values := file.Values(name); len(values) == 1 && (values[0] == "" || strings.Contains(values[0], "/")) {
			*to = values[0]
		}
	}
	if src.Dir == "" && src.KeyTable == "" {
		src.Dir = folder // a daemon that only watches signs nothing, and has its keys
	}
	if isPostfixTable(src.KeyTable) {
		return fmt.Errorf("%s: the keys are in a table of Postfix (dkim-key-table); `postern dkim check DOMAIN` looks at those of a domain", settings)
	}
	if _, err := os.Lstat(src.Dir); src.KeyTable != "" && errors.Is(err, os.ErrNotExist) && file.Get("dkim-keys") == "" {
		src.Dir = ""
	}
	return nil
}

// isPostfixTable reports whether spec is the name of a Postfix table. OpenDKIM's own
// tables are paths, or begin with file:, refile: or csl:.
func isPostfixTable(spec string) bool {
	kind, _, ok := postmap.SplitSpec(spec)
	return ok && slices.Contains(postmap.Known(), kind)
}

// openDKIM returns spec if it is one of OpenDKIM's tables, or else "".
func (*signPart) openDKIM(spec string) string {
	if isPostfixTable(spec) {
		return ""
	}
	return spec
}

// keyWithin finds what may be a line of a private key.
var keyWithin = regexp.MustCompile(`[A-Za-z0-9+/=]{40,}`)

// hideKey masks everything that may be a private key in a text about a table with keys,
// but not the name of the table. A part of a key can be in an error, because a line of
// a key without indentation looks like an entry.
func hideKey(text, spec string) string {
	_, name, _ := postmap.SplitSpec(spec)
	return keyWithin.ReplaceAllStringFunc(text, func(found string) string {
		if strings.Contains(name, found) {
			return found
		}
		return "***"
	})
}

// tableSetting is a setting that names a table.
type tableSetting struct{ flag, spec string }

// keyTables returns the settings of the two tables that both OpenDKIM and Postfix have.
func (o *signPart) keyTables() []tableSetting {
	return []tableSetting{{"dkim-key-table", o.DKIMKeyTable}, {"dkim-signing-table", o.DKIMSigningTable}}
}

func (o *signPart) validateTables(s *config.Set) error {
	var errs []error
	if isPostfixTable(o.DKIMSigningTable) != isPostfixTable(o.DKIMKeyTable) && o.DKIMSigningTable != "" && o.DKIMKeyTable != "" {
		errs = append(errs, s.Errorf("dkim-signing-table", "one of it and dkim-key-table is a Postfix table, the other one of OpenDKIM's; make both of one kind"))
	}
	if o.DKIMOptionsTable != "" && !isPostfixTable(o.DKIMOptionsTable) {
		errs = append(errs, s.Errorf("dkim-options-table", "no table of Postfix's, type:name; known types: %s", strings.Join(postmap.Known(), " ")))
	}
	for _, table := range o.keyTables() {
		if spec := table.spec; isPostfixTable(spec) && strings.Contains(spec, "{") && (strings.Contains(spec, "PRIVATE") || keyWithin.MatchString(spec)) {
			errs = append(errs, s.Errorf(table.flag, "the setting holds a private key, where everyone sees it; write the path of its file"))
		}
	}
	return errors.Join(errs...)
}

// openTables opens the Postfix tables. It returns nil if there are none.
func (o *signPart) openTables(n *needs) (*sign.Tables, error) {
	t := &sign.Tables{Group: n.options.group(), RSA: o.engine.Signer}
	for _, one := range []struct {
		flag, spec string
		to         **sign.LookupTable
	}{
		{"dkim-key-table", o.DKIMKeyTable, &t.Keys},
		{"dkim-signing-table", o.DKIMSigningTable, &t.Senders},
		{"dkim-options-table", o.DKIMOptionsTable, &t.Options},
	} {
		if !isPostfixTable(one.spec) {
			continue
		}
		table, err := o.openTable(n, one.spec)
		if err != nil {
			return nil, n.set.Errorf(one.flag, "%w", err)
		}
		*one.to = lookupTable(table)
	}
	if t.Keys == nil && t.Options == nil {
		return nil, nil
	}
	return t, nil
}

func lookupTable(t postmap.Table) *sign.LookupTable {
	table := &sign.LookupTable{Lookup: t.Source, Name: t.Spec, Pattern: t.Pattern, Files: t.Files}
	switch kind, name, _ := postmap.SplitSpec(t.Spec); kind {
	case "mysql", "pgsql", "ldap", "unionmap":
		table.Files = nil // these files describe how to reach the server
	case "sqlite":
		table.Files = nil
		if c, err := conf.Open(name, func(string) {}); err == nil {
			path, _ := c.Lookup("dbpath")
			table.Files = []string{path}
		}
	}
	return table
}

// dkimTableKey is the settings from which a table is made, beside its files.
type dkimTableKey struct {
	spec string
	dkimTables
}

// openTable opens a table. It returns the table in force if files and settings are the
// same, or if the new text cannot replace it.
func (o *signPart) openTable(n *needs, spec string) (postmap.Table, error) {
	table, err := lastgood.Keep(n.life, n.Runtime, dkimTableKey{spec, o.dkimTables}, lastgood.Reader[postmap.Table]{
		Name: spec,
		Open: func() (postmap.Table, error) {
			table, err := postmap.Open(spec, postmap.Options{
				Warn: func(text string) { n.Log.Warn(hideKey(text, spec)) },
				Remote: remote.Config{
					Timeout: o.DKIMTableTimeout, TTL: o.DKIMTableCacheTTL, NegativeTTL: min(tableNegativeTTL, o.DKIMTableCacheTTL),
					StaleFor: tableStale, MaxEntries: o.DKIMTableCacheSize,
				},
				State: tables.State(n.Log),
			})
			if err != nil {
				err = errors.New(hideKey(err.Error(), spec))
			}
			return table, err
		},
		Files: func(t postmap.Table) []string { return t.Files },
		Len:   postmap.Table.Len,
		Close: func(t postmap.Table) error { return postmap.Close(t) },
	})
	if err != nil {
		return table, err
	}
	n.life.Watch(table.Files...)
	n.tables = append(n.tables, table)
	if !n.set.Online() {
		return table, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.DKIMTableTimeout)
	defer cancel()
	return table, table.Probe(ctx)
}
