package sign

import (
	"bytes"
	"strings"

	"github.com/postern-mail/postern/internal/dkim"
)

// maxLine is the longest line that Postfix does not break, in octets without the line
// break (RFC 5321 section 4.5.3.1.6; smtp_line_length_limit).
const maxLine = 998

// lineMeter finds the longest line of a message, if it is longer than maxLine.
type lineMeter struct {
	current, longest int
}

// field measures the lines of a header field.
func (l *lineMeter) field(f dkim.Field) {
	used := len(f.Name) + len(":")
	for line := range strings.SplitSeq(f.Value, "\n") {
		l.longest = max(l.longest, used+len(strings.TrimSuffix(line, "\r")))
		used = 0
	}
}

// Write measures a piece of the body.
func (l *lineMeter) Write(p []byte) {
	for {
		p = l.skipShort(p)
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.current += len(p)
			return
		}
		l.longest = max(l.longest, l.current+i-len("\r"))
		l.current = 0
		p = p[i+1:]
	}
}

// skipShort skips lines that are no longer than maxLine, as most lines are: all lines
// that end within the next maxLine octets. Their lengths do not matter.
func (l *lineMeter) skipShort(p []byte) []byte {
	for {
		room := min(len(p), max(0, maxLine+len("\r\n")-l.current))
		i := bytes.LastIndexByte(p[:room], '\n')
		if i < 0 {
			return p
		}
		l.current = 0
		p = p[i+1:]
	}
}

func (l *lineMeter) octets() int { return max(l.longest, l.current) }
