package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// progress prints how far a command is, over what it has printed before. Without a
// terminal it prints nothing.
type progress struct{ streams }

func (p progress) at(format string, args ...any) {
	if isTerminal(p.err) {
		fmt.Fprintf(p.err, "\r"+format, args...)
	}
}

// end begins a new line for what follows.
func (p progress) end() { p.at("\n") }

// local returns a time as people read it: that of this host, as in Postfix's log, with the
// distance to UTC, because who reads it may also read that of a host in another zone.
func local(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05Z07:00") }

// shown escapes what is not printable, for output on a terminal.
func shown(s string) string {
	q := strconv.QuoteToGraphic(s)
	if q == `"`+s+`"` {
		return s
	}
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// printable replaces what could move a terminal's cursor.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return '?'
		}
		return c
	}, text)
}
