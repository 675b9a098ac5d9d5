package dmarcreport

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"time"
)

// namespace is the XML namespace of RFC 9990.
const namespace = "urn:ietf:params:xml:ns:dmarc-2.0"

// Reporter describes who sends the reports.
type Reporter struct {
	From      string // address
	Receiver  string // domain of From: who received the mail
	Org       string
	Contact   string // may be ""
	Generator string
}

// Report is one report, before it is written.
type Report struct {
	Reporter
	Day    Day
	Domain Domain
}

// Begin returns the first second that the report covers.
func (r *Report) Begin() time.Time { return cmp.Or(r.Domain.Since, r.Day).Begin() }

// ID returns the ID of the report. It is always the same for a domain and a day.
func (r *Report) ID() string {
	sum := sha256.Sum256([]byte(r.Receiver + " " + r.Domain.Name + " " + r.Day.String()))
	return r.Day.Begin().Format("20060102") + hex.EncodeToString(sum[:8])
}

// FileName returns the name of the attachment.
func (r *Report) FileName() string {
	return fmt.Sprintf("%s!%s!%d!%d!%s.xml.gz", r.Receiver, r.Domain.Name, r.Begin().Unix(), r.Day.End().Unix(), r.ID())
}

// WriteGzip writes the report in the form of the attachment.
func (r *Report) WriteGzip(ctx context.Context, w io.Writer, store Store) error {
	z := gzip.NewWriter(w)
	if err := r.WriteXML(ctx, z, store); err != nil {
		return err
	}
	return z.Close()
}

// WriteXML writes the report. Rows are written as they are read.
func (r *Report) WriteXML(ctx context.Context, w io.Writer, store Store) error {
	x := &xmlWriter{w: bufio.NewWriterSize(w, 64<<10)}
	x.raw(xml.Header)
	x.raw(`<feedback xmlns="` + namespace + `">` + "\n")
	x.text("version", "1.0")
	r.writeHead(x)
	err := store.Rows(ctx, r.Day, r.Domain.Name, func(c Counted) error {
		row, err := parseRow(c.Row)
		if err != nil {
			return fmt.Errorf("a row of %s on %s cannot be read: %w", r.Domain.Name, r.Day, err)
		}
		row.write(x, c.Count)
		return x.err
	})
	if err != nil {
		return err
	}
	x.raw("</feedback>\n")
	return cmp.Or(x.err, x.w.Flush())
}

func (r *Report) writeHead(x *xmlWriter) {
	x.open("report_metadata")
	x.text("org_name", r.Org)
	x.text("email", r.From)
	x.optional("extra_contact_info", r.Contact)
	x.text("report_id", r.ID())
	x.open("date_range")
	x.text("begin", strconv.FormatInt(r.Begin().Unix(), 10))
	x.text("end", strconv.FormatInt(r.Day.End().Unix(), 10))
	x.close("date_range")
	x.text("generator", r.Generator)
	x.close("report_metadata")
	p := &r.Domain.Policy
	x.open("policy_published")
	x.text("domain", r.Domain.Name)
	x.optional("discovery_method", p.Method)
	x.text("adkim", p.ADKIM)
	x.text("aspf", p.ASPF)
	x.text("p", p.P)
	x.text("sp", cmp.Or(p.SP, p.P)) // programs for RFC 7489 need it
	x.optional("np", p.NP)
	x.optional("fo", p.FO)
	x.text("testing", map[bool]string{true: "y", false: "n"}[p.Testing])
	x.close("policy_published")
}

func (r *Row) write(x *xmlWriter, count int64) {
	result := map[bool]string{true: "pass", false: "fail"}
	x.open("record")
	x.open("row")
	x.text("source_ip", r.Source)
	x.text("count", strconv.FormatInt(count, 10))
	x.open("policy_evaluated")
	x.text("disposition", r.Disposition)
	x.text("dkim", result[r.DKIM])
	x.text("spf", result[r.SPF])
	for _, reason := range r.Reasons {
		x.open("reason")
		x.text("type", reason.Type)
		x.optional("comment", reason.Comment)
		x.close("reason")
	}
	x.close("policy_evaluated")
	x.close("row")
	x.open("identifiers")
	x.optional("envelope_from", r.Envelope)
	x.text("header_from", r.HeaderFrom)
	x.close("identifiers")
	r.writeResults(x)
	x.close("record")
}

func (r *Row) writeResults(x *xmlWriter) {
	x.open("auth_results")
	for _, s := range r.Signatures[:min(len(r.Signatures), MaxSignatures)] {
		x.open("dkim")
		x.text("domain", s.Domain)
		x.text("selector", s.Selector)
		x.text("result", s.Result)
		x.close("dkim")
	}
	if r.SPFDomain != "" {
		x.open("spf")
		x.text("domain", r.SPFDomain)
		x.text("scope", "mfrom")
		x.text("result", r.SPFResult)
		x.close("spf")
	}
	x.close("auth_results")
}

// xmlWriter writes elements, and remembers the first error.
type xmlWriter struct {
	w   *bufio.Writer
	err error
}

func (x *xmlWriter) raw(text string) {
	if x.err == nil {
		_, x.err = x.w.WriteString(text)
	}
}

func (x *xmlWriter) open(name string)  { x.raw("<" + name + ">\n") }
func (x *xmlWriter) close(name string) { x.raw("</" + name + ">\n") }

func (x *xmlWriter) text(name, value string) {
	x.raw("<" + name + ">")
	if x.err == nil {
		x.err = xml.EscapeText(x.w, []byte(value))
	}
	x.raw("</" + name + ">\n")
}

func (x *xmlWriter) optional(name, value string) {
	if value != "" {
		x.text(name, value)
	}
}
