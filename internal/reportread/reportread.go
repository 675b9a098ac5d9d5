// Package reportread reads reports from receivers about mail of our domains: DMARC
// aggregate reports (RFC 7489 appendix C, RFC 9990) and SMTP TLS reports (RFC 8460).
//
// Anyone can send such a report by mail. Reports are XML or JSON, compressed by gzip or
// zip, and attached to mails in folders or mailboxes. The data flows like this:
//
//	files ──▶ containers (gzip, zip, mail, mbox) ──▶ a report ──▶ Tally ──▶ Summary
//	                                                     └──────▶ Store ──────┘
//
// Invariants:
//
//   - Everything is read as a stream. Limits bounds the memory, for input of any size,
//     compressed or not.
//   - A report counts as a whole or not at all, and only once: the same report in a
//     second file is a duplicate.
//   - XML entities are never expanded, and a document type declaration is refused.
//   - Text of a report is clipped and made valid UTF-8, but not escaped. Code that prints
//     it must escape it.
package reportread

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Limits bound what is read. Zero means the default of a field.
type Limits struct {
	Inflated int64 // octets that one file or mail may inflate to; 512 MiB
	Archive  int64 // octets of a zip archive; 32 MiB
	JSON     int64 // octets of a TLS report; 16 MiB
	Ratio    int64 // how many times its size a compressed part may inflate to, beyond the first MiB; 200
	Rows     int   // rows of a DMARC report; 1,000,000
	Groups   int   // different sources and outcomes of one report, and sources of a summary; 100,000
	Texts    int64 // octets of the texts of these outcomes, and of those of a summary; 32 MiB
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.Inflated, 512<<20)
	setDefault(&l.Archive, 32<<20)
	setDefault(&l.JSON, 16<<20)
	setDefault(&l.Ratio, 200)
	setDefault(&l.Rows, 1_000_000)
	setDefault(&l.Groups, 100_000)
	setDefault(&l.Texts, 32<<20)
	return l
}

func setDefault[T int | int64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Reader finds the reports in files, folders and streams.
type Reader struct {
	Limits Limits
	DMARC  func(*Report) error    // called for each DMARC report; an error ends the reading
	TLS    func(*TLSReport) error // called for each TLS report; an error ends the reading
	// Problem is called for what could not be read. Reading continues after it. Mails of
	// a mailbox or a folder are a problem only if something shows that they are reports,
	// because anyone can send broken mails: the others are counted in Odd.
	Problem func(where string, err error)
	Stdin   io.Reader // what "-" is; needed for Paths only

	Files  int // files and mails that were looked at
	Others int // files and mails that had no report and did not look like one
	Odd    int // mails that could not be read and that did not look like reports
	Failed int // problems

	OddWhere string // the first of Odd, and what is wrong with it
	OddWhy   error
}

// errStop wraps an error of the caller's functions, which ends the reading.
type errStop struct{ error }

func (e errStop) Unwrap() error { return e.error }

// Stream reads a report, an archive, a mail or a mailbox.
func (r *Reader) Stream(ctx context.Context, name string, in io.Reader) error {
	return r.stream(ctx, name, in, true)
}

// stream reads one file. If its name was given as an argument, it must have a report.
func (r *Reader) stream(ctx context.Context, name string, in io.Reader, named bool) error {
	limits := r.Limits.withDefaults()
	buffered := newBuffered(&cancelled{ctx, in})
	if sniff(buffered) == formMbox {
		return r.mailbox(ctx, name, buffered, limits)
	}
	return r.unit(ctx, name, buffered, limits, named)
}

// mailbox reads the mails of a mailbox in the mbox format. The limits apply to each mail
// separately.
func (r *Reader) mailbox(ctx context.Context, name string, in *buffered, limits Limits) error {
	box := newMbox(in)
	for n := 1; box.next(); n++ {
		mail := newBuffered(box)
		if err := r.unit(ctx, fmt.Sprintf("%s: mail %d", name, n), mail, limits, false); err != nil {
			return err
		}
	}
	if err := box.failed(); err != nil {
		return r.problem(ctx, name, err)
	}
	return nil
}

// unit reads one file or one mail.
func (r *Reader) unit(ctx context.Context, where string, in *buffered, limits Limits, named bool) error {
	r.Files++
	u := &unit{reader: r, limits: limits, left: limits.Inflated, strange: !named && sniff(in) == formMail, ended: func() error { return context.Cause(ctx) }}
	err := u.open(where, in, 0)
	if u.isOdd(err) {
		u.noteOdd(where, err)
		err = nil
	}
	if u.odd {
		r.Odd++
	}
	switch {
	case isOther(err) && !named:
		r.Others++
		return nil
	case err != nil:
		return r.problem(ctx, where, err)
	case u.found == 0 && u.failed == 0 && named:
		return r.problem(ctx, where, errNoReport)
	case u.found == 0 && u.failed == 0:
		r.Others++
	}
	return nil
}

// problem reports what cannot be read. It returns an error only if that ends the reading.
func (r *Reader) problem(ctx context.Context, where string, err error) error {
	if stop := (errStop{}); errors.As(err, &stop) {
		return stop.error
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.Failed++
	if r.Problem != nil {
		r.Problem(where, err)
	}
	return nil
}

// cancelled is a stream that fails when its context ends.
type cancelled struct {
	ctx context.Context
	in  io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.in.Read(p)
}
