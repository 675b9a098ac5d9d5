package maptype

import (
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/ownership/ldapmap"
	"github.com/postern-mail/postern/internal/ownership/mysqlmap"
	"github.com/postern-mail/postern/internal/ownership/pgsqlmap"
	"github.com/postern-mail/postern/internal/ownership/remote"
	"github.com/postern-mail/postern/internal/ownership/socketmap"
	"github.com/postern-mail/postern/internal/ownership/sqlitemap"
)

// ready fills in what every server's table needs.
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
func (o Options) openDomain(spec string) (ownership.Table, error) {
	if o.depth++; o.depth > maxDepth {
		return ownership.Table{}, fmt.Errorf("more than %d tables within each other", maxDepth)
	}
	return Open(spec, o)
}

// openRemote opens the types that have a table file.
func openRemote(mapType, path string, o Options) (ownership.Table, error) {
	o = o.ready()
	source, files, err := openServer(mapType, path, o)
	if err != nil {
		return ownership.Table{}, err
	}
	return ownership.Table{Source: o.behind(mapType+":"+path, source), Files: files}, nil
}

func openServer(mapType, path string, o Options) (ownership.Source, []string, error) {
	switch now := o.Remote.Now; mapType {
	case "sqlite":
		return sqlitemap.Open(path, sqlitemap.Options{MaxConns: o.MaxConns, Warn: o.Warn, Table: o.openDomain, Now: now})
	case "mysql":
		return mysqlmap.Open(path, mysqlmap.Options{MaxConns: o.MaxConns, Warn: o.Warn, Table: o.openDomain, Now: now})
	case "pgsql":
		return pgsqlmap.Open(path, pgsqlmap.Options{MaxConns: o.MaxConns, Warn: o.Warn, Table: o.openDomain, Now: now})
	case "ldap":
		return ldapmap.Open(path, ldapmap.Options{MaxConns: o.MaxConns, Warn: o.Warn, Table: o.openDomain, Now: now})
	}
	return nil, nil, errors.New("no server type")
}

// openSocketmap opens the type that has all in its name. As in Postfix it is
// asked like a pattern table.
func openSocketmap(mapType, text string, o Options) (ownership.Table, error) {
	o = o.ready()
	source, err := socketmap.Open(text, socketmap.Options{MaxConns: o.MaxConns, Now: o.Remote.Now})
	if err != nil {
		return ownership.Table{}, fmt.Errorf("%w; write socketmap:inet:host:port:name or socketmap:unix:/path:name", err)
	}
	return ownership.Table{Source: o.behind(mapType+":"+text, source), Pattern: true}, nil
}

// behind puts the cache in front of a server.
func (o Options) behind(table string, source ownership.Source) ownership.Source {
	c := o.Remote
	c.State = nil
	if o.State != nil {
		c.State = func(change remote.Change) { o.State(table, change) }
	}
	return remote.New(source, c)
}
