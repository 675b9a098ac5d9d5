package postmap

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
)

// formKeys are few, because each of many table files is asked for them.
var formKeys = []string{
	"ann@x.example", "ANN@x.example", "pr@x.example", "o'hara@x.example", `back\slash@x.example`, "per%cent@x.example", "under_score@x.example",
	"bare", "@all.example", "list@deep.sub.x.example", "nobody@x.example", "42@x.example", "o''hara@x.example",
}

// typedTable holds values of the types whose spelling the client library decides.
const typedTable = "CREATE TABLE typed (sender VARCHAR(200), i INTEGER, d DECIMAL(8,3), f DOUBLE PRECISION, s VARCHAR(200), t TIMESTAMP NULL, day DATE NULL)"

var typedRows = []string{
	"INSERT INTO typed VALUES ('ann@x.example', 7, 1.500, 0.1, ' padded ', '2026-11-26 01:02:03', '2026-11-26')",
	"INSERT INTO typed VALUES ('pr@x.example', -1, 0, 1e20, '', '1999-12-31 23:59:59', '1999-12-31')",
	"INSERT INTO typed VALUES ('bare', NULL, NULL, 3, 'text', NULL, NULL)",
	"INSERT INTO typed VALUES ('@all.example', 2147483647, 99999.999, 123456.789, 'a,b', '2000-01-01 00:00:00', '2000-01-01')",
}

// commonForms are queries that all three dialects understand. CAT(…) is replaced
// by the dialect's way to join strings.
var commonForms = []string{
	"SELECT login FROM owners WHERE sender = lower('%s')",
	"SELECT login FROM owners WHERE lower(sender) = lower('%s')",
	"SELECT upper(login) FROM owners WHERE sender = '%s'",
	"SELECT login FROM owners WHERE sender = trim(' %s ')",
	"SELECT login FROM owners WHERE sender = replace('%s', 'X.', 'x.')",
	"SELECT login FROM owners WHERE sender = coalesce(nullif('%s', ''), 'none')",
	"SELECT login FROM owners WHERE sender = CASE WHEN '%s' = 'bare' THEN 'ann@x.example' ELSE '%s' END",
	"SELECT CASE '%u' WHEN 'ann' THEN 'first' ELSE login END FROM owners WHERE sender = '%s'",
	"SELECT login FROM owners WHERE sender IN ('%s', '@%d')",
	"SELECT login FROM owners WHERE sender IN ('%s') AND NOT sender IN ('%u')",
	"SELECT login FROM owners WHERE sender BETWEEN '%s' AND '%s'",
	"SELECT login FROM owners WHERE sender <> 'x%s' AND sender = '%u@%d'",
	"SELECT login FROM owners WHERE sender LIKE '%u@%%' ORDER BY login",
	"SELECT login FROM owners WHERE '%s' LIKE sender",
	"SELECT count(*) FROM owners WHERE sender = '%s'",
	"SELECT max(login) FROM owners WHERE sender = '%s'",
	"SELECT min(login) FROM owners WHERE sender = '%s' GROUP BY sender HAVING count(*) > 0",
	"SELECT login FROM (SELECT login, sender FROM owners) AS o WHERE o.sender = '%s'",
	"SELECT login FROM owners WHERE sender = (SELECT max(sender) FROM owners WHERE sender = '%s')",
	"SELECT login FROM owners o WHERE EXISTS (SELECT 1 FROM owners p WHERE p.sender = '%s' AND p.login = o.login)",
	"SELECT a.login FROM owners a JOIN owners b ON a.login = b.login WHERE b.sender = '%s' ORDER BY a.login",
	"SELECT a.login FROM owners a LEFT JOIN owners b ON b.sender = '%s' WHERE a.sender = '%s'",
	"SELECT login FROM owners WHERE sender = '%s' UNION SELECT login FROM owners WHERE sender = '@%d' ORDER BY 1",
	"SELECT login FROM owners WHERE sender = '%s' UNION ALL SELECT '%u' FROM owners WHERE sender = '%s'",
	"SELECT '%s' AS whole FROM owners WHERE sender = '%s'",
	"SELECT '%u' FROM owners WHERE sender = '%s'",
	"SELECT '%d' FROM owners WHERE sender = '%s'",
	"SELECT 'it''s %u' FROM owners WHERE sender = '%s'",
	"SELECT CAT('%u', '@', '%d') FROM owners WHERE sender = '%s'",
	"SELECT login FROM owners WHERE sender = CAT('%u', '@', '%d')",
	"SELECT CAT(login, ' for %s') FROM owners WHERE sender = '%s'",
	"SELECT CAT('<', '%s', '>') FROM owners WHERE sender = '%s'",
	"WITH k AS (SELECT '%s' AS k) SELECT login FROM owners, k WHERE sender = k.k",
	"WITH a AS (SELECT login, sender FROM owners), b AS (SELECT login FROM a WHERE sender = '%s') SELECT login FROM b ORDER BY login",
	"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT CAT('%u', i) FROM n ORDER BY i",
	"SELECT login FROM senders WHERE sender = '%s'",
	"SELECT login FROM senders WHERE sender = '%s' LIMIT 1",
	"SELECT DISTINCT login FROM owners WHERE sender = '%s' OR sender = '%S' ORDER BY login DESC",
	"SELECT substr('%s', 1, 3) FROM owners WHERE sender = '%s'",
	"SELECT length('%s') FROM owners WHERE sender = '%s'",
	"SELECT CAST('%s' AS char(40)) FROM owners WHERE sender = 'ann@x.example'",
	"SELECT 1 FROM owners WHERE sender = '%s'",
	"SELECT i FROM typed WHERE sender = '%s'",
	"SELECT i + 1 FROM typed WHERE sender = '%s'",
	"SELECT s FROM typed WHERE sender = '%s'",
	"SELECT f FROM typed WHERE sender = '%s'",
	"SELECT login FROM owners WHERE (sender = '%s') AND ('%u' <> 'ann' OR '%d' = 'x.example')",
	"SELECT login\n  FROM owners\n# a comment of the table file\n  WHERE sender = '%s' -- its end",
	"SELECT login /* it's */ FROM owners WHERE sender = '%s'",
	"SELECT login FROM owners WHERE sender='%s'AND 1=1",
	"SELECT login FROM owners WHERE sender = '%u@%2.%1'",
	"SELECT login FROM owners WHERE sender NOT LIKE 'a%%' AND sender = '%s'",
	"SELECT 'a', login FROM owners WHERE sender = '%s'",
}

var resultForms = []string{
	"result_format = <%s>", "result_format = %s, %S", "result_format = %u at %d", "result_format = %U", "result_format = 100%% %s", "expansion_limit = 1",
	"domain = x.example", "domain = !x.example, static:all", "domain = inline:{x.example=yes, all.example=yes}",
}

var dialectForms = map[string][]string{
	"mysql": {
		"SELECT d FROM typed WHERE sender = '%s'", "SELECT t FROM typed WHERE sender = '%s'", "SELECT day FROM typed WHERE sender = '%s'", "SELECT d * 2 FROM typed WHERE sender = '%s'",
		"SELECT f * 3 FROM typed WHERE sender = '%s'", "SELECT TIME(t) FROM typed WHERE sender = '%s'", "SELECT YEAR(t) FROM typed WHERE sender = '%s'", "SELECT i > 0 FROM typed WHERE sender = '%s'",
		"SELECT login FROM owners WHERE sender = \"%s\"", "SELECT login FROM owners WHERE sender = CONCAT_WS('@', '%u', '%d')", "SELECT FORMAT(1234.5, 2) FROM owners WHERE sender = '%s'",
		"SELECT JSON_OBJECT('a', '%u') FROM owners WHERE sender = '%s'", "SELECT JSON_UNQUOTE(JSON_EXTRACT('{\"a\": \"%u\"}', '$.a')) FROM owners WHERE sender = 'bare'",
		"SELECT login FROM owners WHERE sender REGEXP '^%u@x'", "SELECT login FROM owners WHERE sender = '%s' COLLATE utf8mb4_bin", "SELECT login FROM owners WHERE BINARY sender = '%s'",
		"SELECT login FROM owners WHERE FIND_IN_SET('%s', sender)", "SELECT SUBSTRING_INDEX('%s', '@', 1) FROM owners WHERE sender = '%s'", "SELECT IF('%u' = 'ann', 'yes', login) FROM owners WHERE sender = '%s'",
		"SELECT HEX('%u') FROM owners WHERE sender = '%s'", "SELECT GROUP_CONCAT(login ORDER BY login) FROM owners WHERE sender = '%s'", "SELECT CONVERT('%s' USING utf8mb4) FROM owners WHERE sender = '%s'",
		"SELECT `login` FROM `owners` WHERE `sender` = '%s'", "SELECT login FROM owners WHERE sender = '%s' # comment", "SELECT IFNULL(i, 'none') FROM typed WHERE sender = '%s'",
		"SELECT LPAD('%u', 6, '*') FROM owners WHERE sender = '%s'", "SELECT DATE_ADD('2026-01-01', INTERVAL LENGTH('%u') DAY) FROM owners WHERE sender = '%s'", "SELECT b'1000001' FROM owners WHERE sender = '%s'",
		"SELECT CAST(login AS BINARY(40)) FROM owners WHERE sender = '%s'", "SELECT CAST(z AS CHAR) FROM numbers WHERE sender = '%s'",
	},
	"pgsql": {
		"SELECT d FROM typed WHERE sender = '%s'", "SELECT t FROM typed WHERE sender = '%s'", "SELECT day FROM typed WHERE sender = '%s'", "SELECT i > 0 FROM typed WHERE sender = '%s'", "SELECT f * 3 FROM typed WHERE sender = '%s'",
		"SELECT concat('%u', '@', '%d') FROM owners WHERE sender = '%s'", "SELECT format('%%s is %%s', '%u', login) FROM owners WHERE sender = '%s'", "SELECT json_build_object('user', '%u', 'login', login) FROM owners WHERE sender = '%s'",
		"SELECT jsonb_build_array('%u', 1, '%d') FROM owners WHERE sender = '%s'", "SELECT concat_ws('@', '%u', '%d') FROM owners WHERE sender = '%s'", "SELECT login FROM owners WHERE sender = '%s'::text", "SELECT '%s'::varchar(5) FROM owners WHERE sender = '%s'",
		"SELECT CAST('%s' AS text) || '!' FROM owners WHERE sender = '%s'", "SELECT login FROM owners WHERE sender = ANY(string_to_array('%s', ','))", "SELECT login FROM owners WHERE sender = ANY(ARRAY['%s', '%u'])", "SELECT login FROM owners WHERE sender = ANY('{\"%u\"}'::text[])",
		"SELECT login FROM owners WHERE sender ~ ('^' || '%u' || '@')", "SELECT login FROM owners WHERE sender ILIKE '%u@%%'", "SELECT split_part('%s', '@', 1) FROM owners WHERE sender = '%s'", "SELECT regexp_replace('%s', '@.*', '') FROM owners WHERE sender = '%s'",
		"SELECT string_agg(login, ',' ORDER BY login) FROM owners WHERE sender = '%s'", "SELECT array_agg(login ORDER BY login) FROM owners WHERE sender = '%s'", "SELECT num_nonnulls('%u', NULL, '%d') FROM owners WHERE sender = '%s'", "SELECT '%s' IS NULL FROM owners WHERE sender = '%s'",
		"SELECT greatest('%u', 'b') FROM owners WHERE sender = '%s'", "SELECT quote_literal('%s') FROM owners WHERE sender = '%s'", "SELECT md5('%s') FROM owners WHERE sender = '%s'", "SELECT to_json('%s'::text) FROM owners WHERE sender = '%s'",
		"SELECT coalesce(NULL, '%s') FROM owners WHERE sender = '%s'", "VALUES ('%s')", "SELECT unnest(ARRAY['%u', '%d'])", "SELECT login FROM owners, (VALUES ('%s')) AS v(s) WHERE sender = v.s", "SELECT overlay('%s' PLACING 'X' FROM 1) FROM owners WHERE sender = '%s'",
		"SELECT position('@' IN '%s') FROM owners WHERE sender = '%s'", "SELECT login FROM owners WHERE row(sender, '%u') = row('%s', '%u')", "SELECT login FROM owner_of('%s') AS login", "SELECT interval '1 day' * length('%u') FROM owners WHERE sender = '%s'",
		"SELECT login FROM owners WHERE sender = '%s' FETCH FIRST 1 ROW ONLY", "SELECT login FROM owners WHERE sender = '%s' AND $q$it's$q$ <> ''", "SELECT \"login\" FROM \"owners\" WHERE \"sender\" = '%s'", "SELECT (SELECT concat('%u', 1)) FROM owners WHERE sender = '%s'",
	},
	"sqlite": {
		"SELECT d FROM typed WHERE sender = '%s'", "SELECT t FROM typed WHERE sender = '%s'", "SELECT day FROM typed WHERE sender = '%s'", "SELECT i > 0 FROM typed WHERE sender = '%s'", "SELECT f * 3 FROM typed WHERE sender = '%s'", "SELECT f / 3 FROM typed WHERE sender = '%s'",
		"SELECT 1.0 FROM owners WHERE sender = '%s'", "SELECT 1e100 FROM owners WHERE sender = '%s'", "SELECT 100000000000000000000 FROM owners WHERE sender = '%s'", "SELECT x'616263' FROM owners WHERE sender = '%s'", "SELECT printf('%%s-%%s', '%u', login) FROM owners WHERE sender = '%s'",
		"SELECT format('%%s', '%u') FROM owners WHERE sender = '%s'", "SELECT json_object('a', '%u') FROM owners WHERE sender = '%s'", "SELECT login FROM owners WHERE sender GLOB '%u@*'", "SELECT login FROM owners WHERE sender = '%s' COLLATE NOCASE", "SELECT quote('%s') FROM owners WHERE sender = '%s'",
		"SELECT group_concat(login) FROM owners WHERE sender = '%s'", "SELECT instr('%s', '@') FROM owners WHERE sender = '%s'", "SELECT typeof('%s') FROM owners WHERE sender = '%s'", "SELECT iif('%u' = 'ann', 'yes', login) FROM owners WHERE sender = '%s'", "VALUES ('%s')",
		"SELECT [login] FROM \"owners\" WHERE `sender` = '%s'", "SELECT login FROM owners WHERE sender IS '%s'", "SELECT hex('%u') FROM owners WHERE sender = '%s'", "SELECT ifnull(i, 'none') FROM typed WHERE sender = '%s'", "SELECT flag FROM flags WHERE sender = '%s'", "SELECT at FROM flags WHERE sender = '%s'",
		"SELECT CAST(f AS TEXT) FROM typed WHERE sender = '%s'", "SELECT -f FROM typed WHERE sender = '%s'", "SELECT unicode('%u') FROM owners WHERE sender = '%s'", "SELECT login FROM owners WHERE sender = '%s' ORDER BY login LIMIT 2 OFFSET 0", "SELECT 0.1 + 0.2 FROM owners WHERE sender = '%s'",
		"SELECT login || char(0) || 'x' FROM owners WHERE sender = '%s'",
	},
}

// testForms compares every form of one dialect with postmap.
func testForms(t *testing.T, mapType, server string, join func(parts string) string) {
	t.Helper()
	p := newPostmap(t)
	var files []string
	for _, query := range append(append([]string(nil), commonForms...), dialectForms[mapType]...) {
		files = append(files, "query = "+joined(query, join)+"\n")
	}
	for _, line := range resultForms {
		files = append(files, "query = SELECT login FROM owners WHERE sender = '%s'\n"+line+"\n")
	}
	t.Logf("%d table files", len(files))
	for i, text := range files {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			p.compareAsked(t, mapType+":"+file(t, "no_result.cf", server+text), formKeys)
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

// joined replaces CAT(…) from the inside out.
func joined(query string, join func(parts string) string) string {
	for {
		start := strings.LastIndex(query, "CAT(")
		if start < 0 || start > 0 && query[start-1] == 'N' || start > 0 && query[start-1] == '_' {
			return query
		}
		end := start + strings.IndexByte(query[start:], ')')
		query = query[:start] + join(query[start+4:end]) + query[end+1:]
	}
}

func bars(parts string) string { return "(" + strings.ReplaceAll(parts, ", ", " || ") + ")" }

func TestMySQLFormsAgainstPostmap(t *testing.T) {
	m := backendtest.NewMariaDB(t,
		"CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\nUSE mail;\nCREATE TABLE owners (sender VARCHAR(255), login VARCHAR(255));\n",
		"INSERT INTO mail.owners VALUES "+strings.ReplaceAll(values(), `\`, `\\`)+";\nCREATE VIEW mail.senders AS SELECT * FROM mail.owners;\nUSE mail;\n"+typedTable+";\n"+strings.Join(typedRows, ";\n")+";\n"+
			"CREATE TABLE numbers (sender VARCHAR(200), z INT(5) ZEROFILL);\nINSERT INTO numbers VALUES ('ann@x.example', 42);\n",
		"CREATE USER postfix@localhost IDENTIFIED BY 'secret';\nGRANT SELECT, EXECUTE ON mail.* TO postfix@localhost;\n")
	testForms(t, "mysql", "hosts = unix:"+m.Socket+"\nuser = postfix\npassword = secret\ndbname = mail\n", func(parts string) string { return "concat(" + parts + ")" })
}

func TestPostgreSQLFormsAgainstPostmap(t *testing.T) {
	p := backendtest.NewPostgreSQL(t, append([]string{
		"CREATE TABLE owners (sender text, login text)", "INSERT INTO owners VALUES " + values(), "CREATE VIEW senders AS SELECT * FROM owners", typedTable,
		"CREATE FUNCTION owner_of(a text) RETURNS SETOF text LANGUAGE sql AS 'SELECT login FROM owners WHERE sender = a'",
		"CREATE ROLE postfix LOGIN PASSWORD 'secret'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO postfix",
	}, typedRows...)...)
	testForms(t, "pgsql", "hosts = inet:"+p.Addr+"\nuser = postfix\npassword = secret\ndbname = postgres\n", bars)
}

func TestSQLiteFormsAgainstPostmap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "owners.sqlite")
	fillSQLite(t, path, append([]string{
		"CREATE TABLE owners (sender TEXT, login TEXT)", "INSERT INTO owners VALUES " + values(), "CREATE VIEW senders AS SELECT * FROM owners", typedTable,
		"CREATE TABLE flags (sender TEXT, flag BOOLEAN, at DATETIME)", "INSERT INTO flags VALUES ('ann@x.example', 1, '2026-11-26T01:02:03Z'), ('pr@x.example', 0, 'soon'), ('bare', 'true', 1764000000)",
	}, typedRows...)...)
	testForms(t, "sqlite", "dbpath = "+path+"\n", bars)
}
