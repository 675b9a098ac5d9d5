package sqlquery

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/ownership/mapconf"
	"github.com/postern-mail/postern/internal/ownership/remote"
)

// Rows runs the query of a table for the values of its placeholders and gives
// every value of the result, NULL excepted.
type Rows func(ctx context.Context, args []string) ([]string, error)

// Template is what the SQL tables have in common: which keys are asked, with
// which statement, and what becomes of the values.
type Template struct {
	Query    Query
	QueryAt  string // path:line of the query
	expander mapconf.Expander
	format   mapconf.Template
	domains  *mapconf.Domains
	limit    int
}

// ReadTemplate reads the parameters query (or those it replaced), result_format,
// domain and expansion_limit.
func ReadTemplate(c *mapconf.Conf, d Dialect, open mapconf.OpenTable) (*Template, error) {
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
		c.Warn(name, "an expansion stands behind LIKE: a % or _ in an address is a wildcard there, as in Postfix; write = where you can")
	}
	if t.format, err = t.expander.Result(c.String("result_format", "%s")); err != nil {
		return nil, c.Error("result_format", err.Error(), "")
	}
	t.domains, err = c.Domains(open)
	return t, err
}

// queryText gives the query and the parameter it comes from.
func queryText(c *mapconf.Conf, d Dialect) (text, name string, err error) {
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

// Files gives the files of the domain list.
func (t *Template) Files() []string { return t.domains.Files() }

// Close closes the tables of the domain list.
func (t *Template) Close() error { return t.domains.Close() }

// Lookup gives the formatted values of a key; rows is only run if no suppression
// rule forbids it.
func (t *Template) Lookup(ctx context.Context, key string, rows Rows) ([]string, error) {
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

var _ ownership.Source = (*Source)(nil)

// Source is a table whose rows come from rows.
type Source struct {
	*Template
	Rows    Rows
	OnClose func() error
}

// Lookup implements [ownership.Source].
func (s *Source) Lookup(ctx context.Context, key string) ([]string, error) {
	return s.Template.Lookup(ctx, key, s.Rows)
}

// Locate implements [ownership.Locator]: the query, for every key.
func (s *Source) Locate(string) string { return s.QueryAt }

// Close closes the server's connections and the domain list.
func (s *Source) Close() error { return errors.Join(s.OnClose(), s.Template.Close()) }
