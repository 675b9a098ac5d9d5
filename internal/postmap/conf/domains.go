package conf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// Bounds of a domain list.
const (
	maxPatterns = 100_000
	maxFiles    = 16 // files that name files
)

// Domains is the list of the domains whose addresses are looked up in a table. The
// first pattern that matches decides; "!" before a pattern excludes.
type Domains struct {
	patterns []domainPattern
	files    []string
}

// Table is an open table that a domain list names.
type Table interface {
	Lookup(ctx context.Context, key string) ([]string, error)
	Close() error
}

// domainPattern is one domain, or a table that lists domains.
type domainPattern struct {
	exclude bool
	name    string // folded; the table's "type:name" if there is a table
	table   Table
}

// OpenTable opens the table that "type:name" means, and returns the files
// that it was read from.
type OpenTable func(spec string) (table Table, files []string, err error)

// Domains parses the parameter "domain": names, files of names, and tables, which open
// opens. An empty list is nil and allows every key.
func (c *Conf) Domains(open OpenTable) (*Domains, error) {
	list := c.List("domain", "")
	if len(list) == 0 {
		return nil, nil
	}
	d := new(Domains)
	for _, pattern := range list {
		if err := d.addPattern(pattern, open); err != nil {
			return nil, errors.Join(c.Wrap("domain", err, ""), d.Close())
		}
	}
	return d, nil
}

func (d *Domains) addPattern(pattern string, open OpenTable) error {
	if len(d.patterns) >= maxPatterns {
		return fmt.Errorf("more than %d domains; keep them in a table", maxPatterns)
	}
	p := domainPattern{}
	name := strings.TrimLeft(pattern, "!")
	p.exclude = (len(pattern)-len(name))%2 == 1
	switch {
	case strings.HasPrefix(name, "/"):
		return d.addFile(name, p.exclude, open)
	case strings.Contains(name, ":") && !strings.HasPrefix(name, "["):
		table, files, err := open(name)
		if err != nil {
			return err
		}
		p.table, p.name = table, name
		d.files = append(d.files, files...)
	default:
		p.name = foldDomain(name)
	}
	d.patterns = append(d.patterns, p)
	return nil
}

// addFile adds the patterns of a file, which has one or several in a line.
func (d *Domains) addFile(path string, exclude bool, open OpenTable) error {
	if len(d.files) >= maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	d.files = append(d.files, path)
	file, err := mapfile.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines, err := file.Lines()
	if err != nil {
		return err
	}
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for name := range strings.FieldsFuncSeq(string(line.Text), func(r rune) bool { return strings.ContainsRune(separators, r) }) {
			if exclude {
				name = "!" + name
			}
			if err := d.addPattern(name, open); err != nil {
				return fmt.Errorf("%s: %w", mapfile.Where(path, line.Number), err)
			}
		}
	}
}

func foldDomain(name string) string {
	return strings.TrimPrefix(mailaddr.FoldKey("@"+name), "@")
}

// Allows reports whether a key may be looked up: it must be an address with a
// local part in a domain of the list.
func (d *Domains) Allows(ctx context.Context, key string) (bool, error) {
	if d == nil {
		return true, nil
	}
	at := strings.LastIndexByte(key, '@')
	if at <= 0 || at == len(key)-1 {
		return false, nil
	}
	domain := foldDomain(key[at+1:])
	for _, p := range d.patterns {
		match, err := p.matches(ctx, domain)
		if err != nil {
			return false, fmt.Errorf("domain list: %w", err)
		}
		if match {
			return !p.exclude, nil
		}
	}
	return false, nil
}

func (p domainPattern) matches(ctx context.Context, domain string) (bool, error) {
	if p.table == nil {
		return p.name == domain, nil
	}
	values, err := p.table.Lookup(ctx, domain)
	if err != nil {
		return false, fmt.Errorf("table %s: %w", p.name, err)
	}
	return len(values) > 0, nil
}

// Probe returns an error if a table of the list cannot answer.
func (d *Domains) Probe(ctx context.Context) error {
	if d == nil {
		return nil
	}
	var errs []error
	for _, p := range d.patterns {
		prober, ok := p.table.(interface{ Probe(context.Context) error })
		if !ok {
			continue
		}
		if err := prober.Probe(ctx); err != nil {
			errs = append(errs, fmt.Errorf("domain list: table %s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// Files returns the files that the list was read from.
func (d *Domains) Files() []string {
	if d == nil {
		return nil
	}
	return d.files
}

// Close closes the tables of the list.
func (d *Domains) Close() error {
	if d == nil {
		return nil
	}
	var errs []error
	for _, p := range d.patterns {
		if p.table != nil {
			errs = append(errs, p.table.Close())
		}
	}
	return errors.Join(errs...)
}
