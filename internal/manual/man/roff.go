package main

import (
	"fmt"
	"strings"
)

// roff builds a page with the man macros.
type roff struct{ strings.Builder }

// line writes a request. Texts from elsewhere must be escaped.
func (r *roff) line(format string, args ...any) { fmt.Fprintf(r, format+"\n", args...) }

func (r *roff) section(name string) { r.line(".SH %s", name) }

// text writes a line of text.
func (r *roff) text(s string) { r.line("%s", escape(s)) }

func (r *roff) paragraph(s string) {
	r.line(".PP")
	r.text(s)
}

func (r *roff) entries(all []entry) {
	for _, e := range all {
		r.line(".TP")
		r.line(".B %s", escape(e.term))
		r.text(e.text)
	}
}

func (r *roff) flags(all []flag) {
	for _, f := range all {
		r.line(".TP")
		r.line(".B %s", escape(f.names))
		r.text(f.text)
	}
}

// escape returns s as a line of text without any meaning to roff.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, `"`, `\(dq`).Replace(s)
	if strings.HasPrefix(s, ".") {
		return `\&` + s
	}
	return s
}
