package postmap

import (
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/ldap"
	"github.com/postern-mail/postern/internal/postmap/remote"
	"github.com/postern-mail/postern/internal/postmap/sql"
)

// ready sets the options that every table in a server needs.
func (o Options) ready() Options {
	if o.MaxConns <= 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.Remote.Now == nil {
		o.Remote.Now = time.Now
	}
	return o
}

// openDomain opens a table of a domain list.
func (o Options) openDomain(spec string) (conf.Table, []string, error) {
	if o.depth++; o.depth > maxDepth {
		return nil, nil, fmt.Errorf("more than %d tables within each other", maxDepth)
	}
	table, err := Open(spec, o)
	return table.Source, table.Files, err
}

// openRemote opens the types that have a table file.
func openRemote(mapType, path string, o Options) (Table, error) {
	o = o.ready()
	source, files, err := openServer(mapType, path, o)
	if err != nil {
		return Table{}, err
	}
	return Table{Source: o.behind(mapType+":"+path, source), Files: files}, nil
}

func openServer(mapType, path string, o Options) (Source, []string, error) {
	if mapType == "ldap" {
		return ldap.Open(path, ldap.Options{MaxConns: o.MaxConns, Warn: o.Warn, Table: o.openDomain, Now: o.Remote.Now})
	}
	return sql.Open(mapType, path, sql.Options{MaxConns: o.MaxConns, Warn: o.Warn, Table: o.openDomain, Now: o.Remote.Now})
}

// openSocketmap opens a socketmap: table, whose name has all its settings. As in
// Postfix, its keys are those of a pattern table.
func openSocketmap(mapType, text string, o Options) (Table, error) {
	o = o.ready()
	source, err := remote.OpenSocketmap(text, remote.SocketmapOptions{MaxConns: o.MaxConns, Now: o.Remote.Now})
	if err != nil {
		return Table{}, fmt.Errorf("%w; write socketmap:inet:host:port:name or socketmap:unix:/path:name", err)
	}
	return Table{Source: o.behind(mapType+":"+text, source), Pattern: true}, nil
}

// behind puts the cache in front of a server.
func (o Options) behind(table string, source Source) Source {
	c := o.Remote
	c.State = nil
	if o.State != nil {
		c.State = func(change remote.Change) { o.State(table, change) }
	}
	return remote.New(source, c)
}
