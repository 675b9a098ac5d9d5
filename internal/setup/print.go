// Printing a plan: what was found, the changes in two columns, the files of settings.

package setup

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// columnWidth is the maximum width of the left column.
const columnWidth = 72

// Print writes a plan as text for the administrator. hide masks secrets.
func (p *Plan) Print(w io.Writer, hide func(string) string) {
	out := &printer{w, hide}
	out.printf("Postfix %s, %s\n", p.Postfix.Version(), p.Postfix.Dir)
	out.found(p)
	if p.Nothing() {
		out.printf("\nNothing to change: Postern is attached.\n")
	} else {
		out.changes(p.Changes)
		out.files(p.Files)
	}
	for _, i := range p.Imports {
		if i.Lacks != "" {
			out.printf("\nThe memory of %s in %s is not imported: %s, before you run postern setup --apply.\n", i.Program, i.Folder, i.Lacks)
			continue
		}
		out.printf("\nThe memory of %s in %s is imported once the daemons run.\n", i.Program, i.Folder)
	}
	out.list("\nNot carried over:\n", p.Cannot)
	out.list("\nTake note:\n", p.Warnings)
	if len(p.Manual) > 0 {
		out.printf("\nFor the files of %s:\n\n", p.Appliance)
		for _, line := range p.Manual {
			out.printf("%s\n", line)
		}
	}
	out.list("\nLeft to do by hand:\n", p.Next)
}

type printer struct {
	w    io.Writer
	hide func(string) string
}

func (o *printer) printf(format string, args ...any) {
	fmt.Fprint(o.w, o.hide(fmt.Sprintf(format, args...)))
}

func (o *printer) list(title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	o.printf("%s", title)
	for _, line := range lines {
		o.printf("  - %s\n", line)
	}
}

// found prints the services and the programs that Postfix asks.
func (o *printer) found(p *Plan) {
	o.printf("\nFound:\n")
	if p.Appliance != "" {
		o.printf("  %s\n", p.Appliance)
	}
	for _, s := range p.Postfix.services {
		o.printf("  %-24s %s\n", s.Key, s.Role)
	}
	for _, peer := range p.Peers {
		o.printf("  %-24s %s: %s\n  %-24s in %s\n", peer.Name, peer.Socket, peer.Note, "", strings.Join(peer.Where, ", "))
	}
}

// changes prints the value that Postfix has now beside the new one, one element a line.
func (o *printer) changes(all []Change) {
	for _, c := range all {
		o.printf("\n%s\n", c.where())
		rows := align(elements(c.Old), elements(c.New))
		if len(rows) == 0 {
			rows = []pair{{"", ""}}
		}
		if c.New == "" {
			rows[0].right = "(empty)"
		}
		switch {
		case c.Unset:
			rows[0].right = "(taken out)"
		case c.Old == "" && c.WasSet:
			rows[0].left = "(empty)"
		case c.Old == "":
			rows[0].left = "(not set)"
		case !c.WasSet:
			rows = append([]pair{{"(the default)", ""}}, rows...)
		}
		o.columns(rows)
	}
}

func (o *printer) columns(rows []pair) {
	width := utf8.RuneCountInString("now")
	for _, row := range rows {
		width = max(width, min(columnWidth, utf8.RuneCountInString(o.hide(row.left))))
	}
	o.printf("    %-*s | %s\n", width, "now", "with Postern")
	for _, row := range rows {
		o.printf("    %-*s | %s\n", width, o.hide(row.left), row.right)
	}
}

// elements returns the elements of a list. An element and its argument are one string.
func elements(list string) []string {
	var all []string
	for _, r := range restrictions(list) {
		all = append(all, r.String())
	}
	return all
}

// files prints the files that are written: of a file of settings only the lines that
// are added, of a file that is ours alone the whole text.
func (o *printer) files(all []File) {
	for _, f := range all {
		switch {
		case f.Settings != "":
			o.printf("\n%s\n", f.Path)
			for _, name := range f.Unset {
				o.printf("    (without %s)\n", name)
			}
			for _, line := range f.Set {
				o.printf("    %s\n", line.Text)
			}
		case f.Secret:
			o.printf("\n%s\n    (a secret, mode %04o)\n", f.Path, f.Mode)
		default:
			o.printf("\n%s\n", f.Path)
			for line := range strings.Lines(string(f.Text)) {
				o.printf("    %s", line)
			}
		}
	}
}

// units returns the units of the daemons that a plan attaches.
func (p *Plan) units() []string {
	var all []string
	if slices.Contains(p.Daemons, Policyd) {
		all = append(all, "postern-policyd.socket", "postern-policyd.service")
	}
	if slices.Contains(p.Daemons, Milterd) {
		all = append(all, "postern-milterd.socket", "postern-milterd-sign.socket", "postern-milterd.service")
	}
	return all
}
