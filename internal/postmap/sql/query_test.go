package sql

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postmap/conf"
)

const key = `o'h\a@mail.x.example`

func translate(t testing.TB, text string, d Dialect) (Query, []string, error) {
	t.Helper()
	var e conf.Expander
	template, err := e.Query(text)
	if err != nil {
		return Query{}, nil, err
	}
	q, err := Translate(template, d)
	if err != nil {
		return Query{}, nil, err
	}
	k, ok := e.Key(key)
	if !ok {
		t.Fatalf("%q: the key is suppressed", text)
	}
	return q, q.Values(k), nil
}

func TestTranslate(t *testing.T) {
	for _, c := range []struct {
		dialect    Dialect
		text, want string
		values     []string
	}{
		{MySQL, "SELECT a FROM t WHERE b='%s';", "SELECT a FROM t WHERE b=?", []string{key}},
		{MySQL, `SELECT a WHERE b = "%u" AND c='x%dy'`, "SELECT a WHERE b = ? AND c=?", []string{`o'h\a`, "xmail.x.exampley"}},
		{MySQL, "SELECT a WHERE b LIKE '%%@%d'", "SELECT a WHERE b LIKE ?", []string{"%@mail.x.example"}},
		{MySQL, `SELECT 'it''s \' -- #' , '%1' # ?`, `SELECT 'it''s \' -- #' , ? # ?`, []string{"example"}},
		{MySQL, `SELECT 'a\n\t\\\%%\_\Z\0\b\r\q%s'`, `SELECT ?`, []string{"a\n\t\\\\%\\_\x1a\x00\b\rq" + key}},
		{MySQL, "SELECT 5--3, `a'b` /* ' ? */ WHERE x = N'%3'", "SELECT 5--3, `a'b` /* ' ? */ WHERE x = ?", []string{"mail"}},
		{PostgreSQL, "SELECT a WHERE b='%s' OR c IN ('%u','%D')", "SELECT a WHERE b=$1 OR c IN ($2,$3)", []string{key, `o'h\a`, "mail.x.example"}},
		{PostgreSQL, `SELECT $$ '%%s' $$, $t$ ' $$ $t$, 'a\' || '%s', x ? 'k'`, `SELECT $$ '%s' $$, $t$ ' $$ $t$, 'a\' || $1, x ? 'k'`, []string{key}},
		{PostgreSQL, `SELECT "a""%%" WHERE b = E'%s'`, `SELECT "a""%" WHERE b = $1`, []string{key}},
		{SQLite, `SELECT "a", [b'c] WHERE d = "%s" -- it's`, `SELECT "a", [b'c] WHERE d = ? -- it's`, []string{key}},
		{SQLite, `SELECT 'a\' WHERE d = '%s'`, `SELECT 'a\' WHERE d = ?`, []string{key}},
	} {
		q, values, err := translate(t, c.text, c.dialect)
		if err != nil || q.Text != c.want || !slices.Equal(values, c.values) {
			t.Errorf("%s:\ngot  %s %q, %v\nwant %s %q", c.text, q.Text, values, err, c.want, c.values)
		}
		if strings.Contains(c.text, "LIKE") != q.Wildcards {
			t.Errorf("%s: wildcards %v", c.text, q.Wildcards)
		}
	}
}

func TestTranslateErrors(t *testing.T) {
	for _, c := range []struct {
		dialect    Dialect
		text, want string
	}{
		{MySQL, "", "empty"},
		{MySQL, " ; ", "empty"},
		{MySQL, "SELECT %s", "outside of quotes"},
		{MySQL, "SELECT `%s`", "quoted name"},
		{MySQL, "SELECT 1 -- %s", "comment"},
		{MySQL, "SELECT 1 # %s", "comment"},
		{MySQL, "SELECT /* %s */ 1", "comment"},
		{MySQL, "SELECT 'a", "no closing"},
		{MySQL, "SELECT `a", "no closing"},
		{MySQL, `SELECT 'a\%s'`, "backslash"},
		{MySQL, "SELECT 1; DROP TABLE x", "one statement"},
		{MySQL, "SELECT '%s' WHERE a = ?", "parameter of its own"},
		{MySQL, "SELECT _utf8'%s'", "in front of a string"},
		{MySQL, "SELECT X'%s'", "in front of a string"},
		{MySQL, "SELECT 'a' '%s'", "side by side"},
		{MySQL, "SELECT '%s' 'a'", "side by side"},
		{PostgreSQL, `SELECT "%s"`, "quoted name"},
		{PostgreSQL, "SELECT date '%s'", "in front of a string"},
		{PostgreSQL, "SELECT $$%s$$", "dollar-quoted"},
		{PostgreSQL, `SELECT E'\n%s'`, "backslash"},
		{PostgreSQL, "SELECT '%s', $1", "parameter of its own"},
		{SQLite, "SELECT [%s]", "quoted name"},
		{SQLite, "SELECT :a, '%s'", "parameter of its own"},
		{SQLite, "SELECT @a, '%s'", "parameter of its own"},
		{SQLite, "SELECT '%x'", "no expansion"},
		{SQLite, "SELECT '%", "end of the template"},
	} {
		if q, _, err := translate(t, c.text, c.dialect); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, %v, want %q", c.text, q.Text, err, c.want)
		}
	}
}

// FuzzTranslate holds that a template is refused or yields one placeholder for
// each value, and that nothing of the key is in the text.
func FuzzTranslate(f *testing.F) {
	for _, text := range []string{"SELECT a FROM t WHERE b='%s'", `'%s' "%u" E'%d' $$ -- #`, `'\'%s'`, "$t$%%$t$ '%1' /*", "''%s''", `'a''%s`, "`%%`[", "x'%s'", "%%%s", "\xff'%s'\x00"} {
		for d := range 3 {
			f.Add(text, d)
		}
	}
	f.Fuzz(func(t *testing.T, text string, d int) {
		var e conf.Expander
		template, err := e.Query(text)
		if err != nil {
			return
		}
		dialect := Dialect(((d % 3) + 3) % 3)
		q, err := Translate(template, dialect)
		if err != nil {
			return
		}
		k, ok := e.Key("secret-user@secret-label.secret-domain")
		if ok && len(q.Values(k)) != len(q.Args) {
			t.Errorf("%q: %d values for %d placeholders", text, len(q.Values(k)), len(q.Args))
		}
		if strings.Contains(q.Text, "secret-") && !strings.Contains(text, "secret-") {
			t.Errorf("%q: the key is in %q", text, q.Text)
		}
		mark := "?"
		if dialect == PostgreSQL {
			mark = "$"
		}
		if strings.Count(q.Text, mark) < len(q.Args) {
			t.Errorf("%q: %q has fewer than %d placeholders", text, q.Text, len(q.Args))
		}
		for _, p := range template {
			if p.Verb != 0 && len(q.Args) == 0 {
				t.Errorf("%q: an expansion was lost in %q", text, q.Text)
			}
		}
	})
}
