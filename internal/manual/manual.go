// Package manual reads the project's documents for tests. The tests compare them with
// the programs: links, and the tables of flags, reasons, record keys and metrics. No
// program uses this package.
package manual

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Page is one document.
type Page struct {
	Path string // relative to the root of the tree
	Text string
}

// Pages returns the Markdown files of the tree at root.
func Pages(root string) ([]Page, error) {
	var all []Page
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != root && (name == "testdata" || strings.HasPrefix(name, ".")) {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		page, err := Read(root, strings.TrimPrefix(path, root+"/"))
		all = append(all, page)
		return err
	})
	return all, err
}

// Read returns one page of the tree at root.
func Read(root, path string) (Page, error) {
	text, err := os.ReadFile(filepath.Join(root, path))
	return Page{path, string(text)}, err
}

// Section returns the text below a heading, up to the next heading of the same or a
// higher rank.
func (p Page) Section(heading string) (text string, ok bool) {
	rank := strings.IndexFunc(heading, func(r rune) bool { return r != '#' })
	var out strings.Builder
	inBlock := false // in a block of code, where a # is no heading
	for line := range strings.Lines(p.Text) {
		if strings.HasPrefix(line, "```") {
			inBlock = !inBlock
		}
		switch {
		case !inBlock && strings.TrimSpace(line) == heading:
			ok = true
		case ok && !inBlock && isHeading(line) && strings.IndexByte(line, ' ') <= rank:
			return out.String(), true
		case ok:
			out.WriteString(line)
		}
	}
	return out.String(), ok
}

func isHeading(line string) bool { return regexp.MustCompile(`^#{1,6} `).MatchString(line) }

// Row is a row of a table: its first cell, and the rest of the line.
type Row struct{ First, Rest string }

// Rows returns the rows of all tables in text, without the table heads.
func Rows(text string) []Row {
	var all []Row
	var before string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		cells, isRow := strings.CutPrefix(line, "|")
		switch {
		case !isRow, before == "": // no table, or its head
		case strings.Trim(line, "|-: ") == "": // the line below the head
		default:
			first, rest := splitCell(cells)
			all = append(all, Row{strings.TrimSpace(first), strings.TrimSpace(rest)})
		}
		before = map[bool]string{true: line}[isRow]
	}
	return all
}

// splitCell splits a row at the first bar that is not escaped.
func splitCell(s string) (first, rest string) {
	for i := range len(s) {
		if s[i] == '|' && (i == 0 || s[i-1] != '\\') {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// Code returns the code spans in a cell.
func Code(cell string) []string {
	var all []string
	for _, m := range codeSpan.FindAllStringSubmatch(cell, -1) {
		all = append(all, m[1])
	}
	return all
}

// Metrics returns the metrics of one daemon that deploy/README.md lists, without
// labels. The text of a metric that only one daemon has starts with the daemon's name.
func Metrics(root, daemon string) ([]string, error) {
	page, err := Read(root, "deploy/README.md")
	if err != nil {
		return nil, err
	}
	text, _ := page.Section("## Metrics")
	var all []string
	for _, row := range Rows(text) {
		owner, _, has := strings.Cut(row.Rest, ":")
		if has && (owner == "policyd" || owner == "milterd") && owner != daemon {
			continue
		}
		for _, name := range Code(row.First) {
			name, _, _ = strings.Cut(name, "{")
			all = append(all, name)
		}
	}
	return all, nil
}

// MetricLabels returns the labels of the metrics that deploy/README.md lists.
// histograms are the metrics whose text says that they are histograms.
func MetricLabels(root string) (labels map[string][]string, histograms []string, err error) {
	page, err := Read(root, "deploy/README.md")
	if err != nil {
		return nil, nil, err
	}
	text, _ := page.Section("## Metrics")
	labels = make(map[string][]string)
	for _, row := range Rows(text) {
		for _, code := range Code(row.First) {
			name, list, _ := strings.Cut(strings.TrimSuffix(code, "}"), "{")
			labels[name] = strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
			if strings.Contains(row.Rest, "histogram:") {
				histograms = append(histograms, name)
			}
		}
	}
	return labels, histograms, nil
}

var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}\p{M} _-]`)

// Anchors returns the names of a page's headings, in the form that links use.
func (p Page) Anchors() map[string]bool {
	all := make(map[string]bool)
	for line := range strings.Lines(p.withoutCode()) {
		if isHeading(line) {
			title := strings.TrimSpace(strings.TrimLeft(line, "#"))
			all[strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(title), ""), " ", "-")] = true
		}
	}
	return all
}

var (
	fence = regexp.MustCompile("(?ms)^```.*?^```")
	link  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// withoutCode returns the page without its code blocks.
func (p Page) withoutCode() string { return fence.ReplaceAllString(p.Text, "") }

// Links returns the targets of a page's links.
func (p Page) Links() []string {
	var all []string
	for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(p.withoutCode(), ""), -1) {
		all = append(all, m[1])
	}
	return all
}
