package sql

import (
	"context"
	"fmt"
	"math"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

// rowsOf runs the query of a table with the values of its placeholders, and returns
// every value of the result except NULL.
type rowsOf func(ctx context.Context, args []string) ([]string, error)

// Template is the common part of the SQL tables: which keys are looked up, with which
// statement, and how the values are formatted.
type Template struct {
	Query    Query
	QueryAt  string // path:line of the query
	expander conf.Expander
	format   conf.Template
	domains  *conf.Domains
	limit    int
}

// readTemplate reads the parameters query (or those it replaced), result_format,
// domain and expansion_limit.
func readTemplate(c *conf.Conf, d Dialect, open conf.OpenTable) (*Template, error) {
	t := &Template{limit: c.Int("expansion_limit", 0, 0, math.MaxInt32)}
	text, name, err := queryText(c, d)
	if err != nil {
		return nil, err
	}
	t.QueryAt = c.Where(name)
	query, err := t.expander.Query(text)
	if err == nil {
		t.Query, err = Translate(query, d)
	}
	if err != nil {
		return nil, c.Error(name, err.Error(), "")
	}
	if t.Query.Wildcards {
		c.Warn(name, "an expansion is behind LIKE: a % or _ in an address is a wildcard there, as in Postfix; write = where you can")
	}
	if t.format, err = t.expander.Result(c.String("result_format", "%s")); err != nil {
		return nil, c.Error("result_format", err.Error(), "")
	}
	t.domains, err = c.Domains(open)
	return t, err
}

// queryText returns the query and the parameter that it comes from.
func queryText(c *conf.Conf, d Dialect) (text, name string, err error) {
	old := make(map[string]string)
	for _, name := range []string{"select_field", "table", "where_field", "additional_conditions", "select_function"} {
		if name == "select_function" && d != PostgreSQL {
			continue
		}
		old[name], _ = c.Lookup(name)
	}
	if query, _ := c.Lookup("query"); query != "" {
		return query, "query", nil
	}
	if function := old["select_function"]; function != "" {
		return "SELECT " + function + "('%s')", "select_function", nil
	}
	for _, name := range []string{"table", "select_field", "where_field"} {
		if old[name] == "" {
			return "", "", c.Error("query", "is missing", "write the query, or the older select_field, table and where_field; "+name+" is not there either")
		}
	}
	return fmt.Sprintf("SELECT %s FROM %s WHERE %s='%%s' %s", old["select_field"], old["table"], old["where_field"], old["additional_conditions"]), "table", nil
}

// Files returns the files of the domain list.
func (t *Template) Files() []string { return t.domains.Files() }

// Close closes the tables of the domain list.
func (t *Template) Close() error { return t.domains.Close() }

// Lookup returns the formatted values of a key. It does not call rows for a key that
// must not be looked up.
func (t *Template) Lookup(ctx context.Context, key string, rows rowsOf) ([]string, error) {
	allowed, err := t.domains.Allows(ctx, key)
	if err != nil || !allowed {
		return nil, err
	}
	k, ok := t.expander.Key(key)
	if !ok {
		return nil, nil
	}
	found, err := rows(ctx, t.Query.Values(k))
	if err != nil {
		return nil, err
	}
	values := found[:0]
	for _, value := range found {
		if formatted, ok := t.expander.Format(t.format, k, value); ok {
			values = append(values, formatted)
		}
	}
	if t.limit > 0 && len(values) > t.limit {
		return nil, &remote.KeyError{What: fmt.Sprintf("more than expansion_limit = %d values", t.limit)}
	}
	return values, nil
}

// Source is a table in a database.
type Source struct {
	*Template
	connections *remote.Pool[session]
}

// Lookup implements [remote.Source].
func (s *Source) Lookup(ctx context.Context, key string) ([]string, error) {
	return s.Template.Lookup(ctx, key, s.rows)
}

// rows asks one of the connections.
func (s *Source) rows(ctx context.Context, args []string) (values []string, err error) {
	err = s.connections.Do(ctx, func(ctx context.Context, c session) (err error) {
		values, err = c.lookUp(ctx, args)
		return err
	}, remote.IsKeyError)
	return values, err
}

// Probe runs the query for a key that no table has, whatever the domain list says. It
// also tests the tables of that list.
func (s *Source) Probe(ctx context.Context) error {
	if err := s.domains.Probe(ctx); err != nil {
		return err
	}
	k, ok := s.expander.Key(remote.ProbeKey)
	if !ok {
		return nil // the query needs more labels than most domains have
	}
	_, err := s.rows(ctx, s.Query.Values(k))
	return err
}

// Locate returns the place of the query, for every key.
func (s *Source) Locate(string) string { return s.QueryAt }

// Close closes the connections and the domain list.
func (s *Source) Close() error {
	s.connections.Close()
	return s.Template.Close()
}
