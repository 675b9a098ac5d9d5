package migrate

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// columns are those of sqlgrey's tables, in the order in which it makes them.
// A dump that names columns is read by the names.
var columns = map[string][]string{
	"connect":    {"sender_name", "sender_domain", "src", "rcpt", "first_seen"},
	"from_awl":   {"sender_name", "sender_domain", "src", "first_seen", "last_seen"},
	"domain_awl": {"sender_domain", "src", "first_seen", "last_seen"},
}

// allowedPasses is the credit of a sender that sqlgrey allowed. It is enough for any
// setting of ours.
const allowedPasses = 1000

// Sqlgrey reads a SQL dump: INSERT statements as sqlite3 .dump, mysqldump and
// pg_dump --inserts write them, or COPY as pg_dump writes it. Times without a zone
// are in loc. A sender that sqlgrey allows for all recipients becomes a credit of
// its domain at its network.
func Sqlgrey(r io.Reader, loc *time.Location, yield func(Entry) error) (Summary, error) {
	s := sqlgrey{loc: loc, yield: yield}
	lines := scanner(r)
	for lines.Scan() {
		s.line++
		if err := s.take(lines.Text()); err != nil {
			return s.result, err
		}
	}
	if err := lines.Err(); err != nil {
		return s.result, fmt.Errorf("line %d: %w", s.line+1, err)
	}
	if !s.found {
		return s.result, errNoTables
	}
	return s.result, nil
}

var errNoTables = errors.New("none of sqlgrey's tables (connect, from_awl, domain_awl) is in it")

type sqlgrey struct {
	result Summary
	loc    *time.Location
	yield  func(Entry) error
	table  string // that line is a row of; "" in a dump
	line   int
	found  bool // a table of sqlgrey
	copy   copyTable
}

func (s *sqlgrey) skip(why string) {
	if s.table != "" {
		s.result.leaveOut(fmt.Sprintf("table %s, row %d: %s", s.table, s.line, why))
		return
	}
	s.result.skip(s.line, why)
}

// copyTable is the COPY of PostgreSQL that is being read.
type copyTable struct {
	open  bool
	table string
	names []string
}

func (s *sqlgrey) take(line string) error {
	if s.copy.open {
		return s.takeCopied(line)
	}
	statement := strings.TrimSpace(line)
	word, rest, _ := strings.Cut(statement, " ")
	switch strings.ToUpper(word) {
	case "INSERT":
		return s.takeInsert(rest)
	case "COPY":
		s.beginCopy(rest)
	}
	return nil
}

// takeInsert reads INTO table [(columns)] VALUES (…),(…);
func (s *sqlgrey) takeInsert(rest string) error {
	rest = strings.TrimSpace(rest)
	if len(rest) < 5 || !strings.EqualFold(rest[:5], "INTO ") {
		return nil
	}
	table, rest := identifier(rest[5:])
	names, known := columns[table]
	if !known {
		return nil
	}
	s.found = true
	if listed, after, ok := nameList(rest); ok {
		names, rest = listed, after
	}
	rest = strings.TrimSpace(rest)
	if len(rest) < 6 || !strings.EqualFold(rest[:6], "VALUES") {
		s.skip("an INSERT without VALUES")
		return nil
	}
	for rest = rest[6:]; ; {
		values, after, ok := tuple(rest)
		if !ok {
			if left := strings.Trim(rest, " ,;"); left != "" {
				s.skip("values that do not end")
			}
			return nil
		}
		rest = after
		if err := s.row(table, names, values); err != nil {
			return err
		}
	}
}

func (s *sqlgrey) beginCopy(rest string) {
	table, rest := identifier(rest)
	names, known := columns[table]
	if listed, _, ok := nameList(rest); ok {
		names = listed
	}
	s.found = s.found || known
	s.copy = copyTable{open: true, table: table, names: names}
}

func (s *sqlgrey) takeCopied(line string) error {
	if line == `\.` {
		s.copy = copyTable{}
		return nil
	}
	if columns[s.copy.table] == nil {
		return nil
	}
	values := strings.Split(line, "\t")
	for i, v := range values {
		values[i] = strings.NewReplacer(`\\`, `\`, `\t`, "\t", `\n`, "\n").Replace(v)
	}
	return s.row(s.copy.table, s.copy.names, values)
}

// row converts one row of a table to an entry.
func (s *sqlgrey) row(table string, names, values []string) error {
	if len(values) != len(names) {
		s.skip(fmt.Sprintf("%d values for %d columns", len(values), len(names)))
		return nil
	}
	fields := map[string]string{}
	for i, name := range names {
		fields[name] = values[i]
	}
	e, err := s.entry(table, fields)
	if err != nil {
		s.skip(err.Error())
		return nil
	}
	if err := s.yield(e); err != nil {
		return err
	}
	s.result.Read++
	return nil
}

func (s *sqlgrey) entry(table string, f map[string]string) (Entry, error) {
	client, err := source(f["src"])
	if err != nil {
		return Entry{}, err
	}
	if table == "connect" {
		first, err := s.time(f["first_seen"])
		if err != nil {
			return Entry{}, err
		}
		at := fromUnix(first.Unix())
		return Entry{Client: client, Sender: sender(f), Recipient: f["rcpt"], First: at, Last: at}, nil
	}
	last, err := s.time(f["last_seen"])
	if err != nil {
		return Entry{}, err
	}
	if f["sender_domain"] == "" || f["sender_domain"] == "-undef-" {
		return Entry{}, errors.New("allowed for the null sender, which has no domain to give credit to")
	}
	return Entry{Client: client, Domain: f["sender_domain"], Passes: allowedPasses, Last: fromUnix(last.Unix())}, nil
}

// sender joins the halves; -undef- is the null sender.
func sender(f map[string]string) string {
	if f["sender_domain"] == "" || f["sender_domain"] == "-undef-" {
		return ""
	}
	return f["sender_name"] + "@" + f["sender_domain"]
}

// source reads an address or the octets of a network.
func source(src string) (string, error) {
	for range 3 {
		if addr, err := netip.ParseAddr(src); err == nil {
			return addr.String(), nil
		}
		src += ".0"
	}
	return "", fmt.Errorf("src %.40q is no address", src)
}

// timeForms are those of the three databases.
var timeForms = []string{"2006-01-02 15:04:05", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04:05-07", "2006-01-02 15:04:05.999999999-07", time.RFC3339}

func (s *sqlgrey) time(text string) (time.Time, error) {
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, text, s.loc); err == nil && t.Unix() > 0 && t.Unix() < maxUnix {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is no time", text)
}

// identifier parses a name at the front, and returns it without quotes and schema.
func identifier(s string) (name, rest string) {
	s = strings.TrimSpace(s)
	end := strings.IndexAny(s, " (")
	if end < 0 {
		end = len(s)
	}
	name, rest = s[:end], s[end:]
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		name = name[dot+1:]
	}
	return strings.ToLower(strings.Trim(name, "\"`[]")), rest
}

// nameList reads (a, b, c).
func nameList(s string) (names []string, rest string, ok bool) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, "(") {
		return nil, s, false
	}
	list, rest, ok := strings.Cut(s[1:], ")")
	if !ok {
		return nil, s, false
	}
	for n := range strings.SplitSeq(list, ",") {
		name, _ := identifier(n)
		names = append(names, name)
	}
	return names, rest, true
}

// maxValues bounds the values of one row.
const maxValues = 64

// tuple reads ('a',1,'it”s') off the front, behind a comma if there is one.
func tuple(s string) (values []string, rest string, ok bool) {
	s = strings.TrimLeft(s, " ,")
	if !strings.HasPrefix(s, "(") {
		return nil, s, false
	}
	for s = s[1:]; len(values) < maxValues; {
		value, after, ok := literal(strings.TrimLeft(s, " "))
		if !ok {
			return nil, s, false
		}
		values = append(values, value)
		after = strings.TrimLeft(after, " ")
		switch {
		case strings.HasPrefix(after, ")"):
			return values, after[1:], true
		case strings.HasPrefix(after, ","):
			s = after[1:]
		default:
			return nil, s, false
		}
	}
	return nil, s, false
}

// literal reads a quoted string or a bare word.
func literal(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, "'") {
		end := strings.IndexAny(s, ",)")
		if end < 0 {
			return "", s, false
		}
		return strings.TrimSpace(s[:end]), s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s): // MySQL
			i++
			b.WriteByte(s[i])
		case s[i] != '\'':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\'':
			i++
			b.WriteByte('\'')
		default:
			return strings.ToValidUTF8(b.String(), string(utf8.RuneError)), s[i+1:], true
		}
	}
	return "", s, false
}
