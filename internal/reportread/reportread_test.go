package reportread

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// rowXML is one record: a source, how many mails, and whether DKIM and SPF passed.
func rowXML(source string, count int, dkim, spf string) string {
	return fmt.Sprintf(`<record><row><source_ip>%s</source_ip><count>%d</count><policy_evaluated><disposition>none</disposition><dkim>%s</dkim><spf>%s</spf></policy_evaluated></row>
<identifiers><header_from>example.com</header_from></identifiers>
<auth_results><dkim><domain>example.com</domain><selector>s1</selector><result>%[3]s</result></dkim><spf><domain>bounce.example.net</domain><result>%[4]s</result></spf></auth_results></record>`, source, count, dkim, spf)
}

const head = `<report_metadata><org_name>Receiver</org_name><email>r@receiver.example</email><report_id>1</report_id><date_range><begin>1700006400</begin><end>1700092799</end></date_range></report_metadata>
<policy_published><domain>example.com</domain><adkim>r</adkim><aspf>r</aspf><p>reject</p><sp>none</sp><pct>100</pct></policy_published>`

func feedback(inner string) string { return "<feedback>" + inner + "</feedback>" }

// plain is the report that all containers of these tests hold.
func plain() string {
	return `<?xml version="1.0"?>` + feedback(head+rowXML("192.0.2.1", 3, "pass", "pass")+rowXML("2001:db8::1", 4, "fail", "pass")+rowXML("198.51.100.9", 5, "fail", "softfail"))
}

func gzipped(t testing.TB, parts ...string) string {
	t.Helper()
	var out bytes.Buffer
	for _, text := range parts {
		z := gzip.NewWriter(&out)
		if _, err := z.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func zipped(t testing.TB, files ...string) string {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for i, text := range files {
		addZipped(t, z, fmt.Sprintf("folder/%d.bin", i), text)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// zippedAs is an archive with one file of this name.
func zippedAs(t testing.TB, name, text string) string {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	addZipped(t, z, name, text)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// overlapping is an archive whose directory lists its only file many times.
func overlapping(t testing.TB, times int) string {
	t.Helper()
	archive := zipped(t, plain())
	directory, end := strings.Index(archive, "PK\x01\x02"), strings.LastIndex(archive, "PK\x05\x06")
	entry, tail := archive[directory:end], []byte(archive[end:])
	binary.LittleEndian.PutUint16(tail[8:], uint16(times))
	binary.LittleEndian.PutUint16(tail[10:], uint16(times))
	binary.LittleEndian.PutUint32(tail[12:], uint32(times*len(entry)))
	return archive[:directory] + strings.Repeat(entry, times) + string(tail)
}

func addZipped(t testing.TB, z *zip.Writer, name, text string) {
	t.Helper()
	w, err := z.Create(name)
	if err == nil {
		_, err = io.WriteString(w, text)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// mailOf is a mail with a text and an attachment.
func mailOf(kind, name, content string) string {
	var lines strings.Builder
	for encoded := base64.StdEncoding.EncodeToString([]byte(content)); encoded != ""; {
		n := min(76, len(encoded))
		lines.WriteString(encoded[:n] + "\r\n")
		encoded = encoded[n:]
	}
	return "Received: from x\r\n\tby y; Tue, 14 Nov 2023 10:00:00 +0000\r\nFrom: r@receiver.example\r\nSubject: Report domain: example.com\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=\"==b==\"\r\n\r\npreamble\r\n--==b==\r\nContent-Type: text/plain\r\n\r\n<feedback>is text here\r\n" +
		"--==b==\r\nContent-Type: " + kind + "\r\nContent-Disposition: attachment; filename=\"" + name + "\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines.String() + "--==b==--\r\n"
}

// bareMail is a mail that is nothing but the report, as Google sends them.
func bareMail(content string) string {
	return "From: r@receiver.example\nContent-Type: application/zip;\n\tname=\"a.zip\"\nContent-Transfer-Encoding: BASE64\n\n" + base64.StdEncoding.EncodeToString([]byte(content)) + "\n"
}

// found is what a Reader found.
type found struct {
	*Reader
	reports  []*Report
	tls      []*TLSReport
	problems []string
}

func newFound(limits Limits) *found {
	f := &found{}
	f.Reader = &Reader{
		Limits:  limits,
		DMARC:   func(r *Report) error { f.reports = append(f.reports, r); return nil },
		TLS:     func(r *TLSReport) error { f.tls = append(f.tls, r); return nil },
		Problem: func(where string, err error) { f.problems = append(f.problems, where+": "+err.Error()) },
	}
	return f
}

func readText(t testing.TB, text string, limits Limits) *found {
	t.Helper()
	f := newFound(limits)
	if err := f.Stream(context.Background(), "in", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return f
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func utf16le(text string) string {
	var out strings.Builder
	for i := range len(text) {
		out.WriteByte(text[i])
		out.WriteByte(0)
	}
	return out.String()
}

// A report is the same in whatever it comes.
func TestContainers(t *testing.T) {
	want := readText(t, plain(), Limits{})
	if len(want.reports) != 1 || want.problems != nil {
		t.Fatalf("plain: %d reports, %q", len(want.reports), want.problems)
	}
	inMail := mailOf("application/gzip", "r!example.com!1!2.xml.gz", gzipped(t, plain()))
	tests := map[string]string{
		"gzip":                     gzipped(t, plain()),
		"gzip, text after it":      gzipped(t, plain()) + "-- \nsent by a list\n",
		"gzip of two members":      gzipped(t, plain()[:200], plain()[200:]),
		"zip":                      zipped(t, plain()),
		"zip with a Mac's files":   zipped(t, "\x00\x05\x16\x07", plain()),
		"gzip in zip":              zipped(t, gzipped(t, plain())),
		"zip in zip":               zipped(t, zipped(t, plain())),
		"mail":                     inMail,
		"mail without its end":     strings.TrimSuffix(inMail, "--==b==--\r\n"),
		"mail, no type":            mailOf("application/octet-stream", "x", zipped(t, plain())),
		"mail, wrong type":         mailOf("text/plain", "report.xml.gz", gzipped(t, plain())),
		"mail, name encoded":       mailOf("text/plain", "=?utf-8?q?r=2Exml=2Egz?=", gzipped(t, plain())),
		"mail, XML attached":       mailOf("text/xml", "", plain()),
		"mail that is the report":  bareMail(zipped(t, plain())),
		"mail in a mail":           mailOf("message/rfc822", "", inMail),
		"mail as a file":           mailOf("application/octet-stream", "report.eml", inMail),
		"mail in a zip":            zipped(t, inMail),
		"noise in base64":          strings.Replace(inMail, "\r\n--==b==--", "\r\n \t!\r\n--==b==--", 1),
		"mailbox":                  "From r@receiver.example Tue Nov 14 10:00:00 2023\n" + strings.ReplaceAll(inMail, "\r\n", "\n") + "\n",
		"mailbox, compressed":      gzipped(t, "From x Tue Nov 14 10:00:00 2023\nSubject: no report\n\nhello\n\nFrom r Tue Nov 14 10:00:00 2023\n"+inMail+"\n"),
		"byte order mark":          "\xef\xbb\xbf" + plain(),
		"UTF-16 with a mark":       "\xff\xfe" + utf16le(strings.Replace(plain(), `"1.0"`, `"1.0" encoding="UTF-16"`, 1)),
		"UTF-16 without a mark":    utf16le(plain()),
		"says UTF-16, is not":      strings.Replace(plain(), `"1.0"`, `"1.0" encoding="utf-16"`, 1),
		"Latin-1":                  strings.Replace(plain(), `"1.0"`, `"1.0" encoding='ISO-8859-1' standalone="yes"`, 1),
		"empty lines before":       "\r\n\r\n" + plain(),
		"text after":               plain() + "\n\x00trailing",
		"namespace of RFC 9990":    strings.Replace(plain(), "<feedback>", `<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">`, 1),
		"namespace with a prefix":  strings.NewReplacer("</", "</d:", "<?", "<?", "<", "<d:").Replace(strings.TrimPrefix(plain(), `<?xml version="1.0"?>`)),
		"within a schema element":  strings.Replace(plain(), "<feedback>", `<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><feedback>`, 1),
		"elements unknown to us":   strings.Replace(plain(), "<feedback>", `<feedback><version>1.0</version><extension><x y='1'>1</x></extension>`, 1),
		"policy after the records": feedback(strings.Replace(head, "<policy_published>", "<x>", 1)[:0] + head[:strings.Index(head, "<policy_published>")] + rowXML("192.0.2.1", 3, "pass", "pass") + rowXML("2001:db8::1", 4, "fail", "pass") + rowXML("198.51.100.9", 5, "fail", "softfail") + head[strings.Index(head, "<policy_published>"):]),
		"upper case":               strings.NewReplacer("pass<", "Pass<", "fail<", "FAIL<", "<p>reject", "<p>Reject").Replace(plain()),
	}
	tests["namespace with a prefix"] = strings.ReplaceAll(strings.ReplaceAll(tests["namespace with a prefix"], "<d:/d:", "</d:"), "<d:feedback>", `<d:feedback xmlns:d="urn:ietf:params:xml:ns:dmarc-2.0">`)
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			got := readText(t, text, Limits{})
			if len(got.reports) != 1 || got.problems != nil {
				t.Fatalf("%d reports, %q", len(got.reports), got.problems)
			}
			if !reflect.DeepEqual(got.reports[0], want.reports[0]) {
				t.Errorf("got  %+v\nwant %+v", got.reports[0], want.reports[0])
			}
		})
	}
}

// What is refused, with the reason, and that the rest is read.
func TestRefused(t *testing.T) {
	nested := zipped(t, zipped(t, zipped(t, plain())))
	small := Limits{Inflated: 3 << 19, Archive: 3 << 19, JSON: 1 << 16, Rows: 10, Groups: 5}
	lots := strings.Repeat("<x></x>", 160_000)
	row := rowXML("192.0.2.1", 1, "pass", "pass")
	deep := func(n int) string {
		text := bareMail(zipped(t, plain()))
		for range n {
			text = "Content-Type: message/rfc822\n\n" + text
		}
		return text
	}
	tests := []struct{ name, text, want string }{
		{"billion laughs", `<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><feedback>&b;</feedback>`, "document type declaration"},
		{"outside entity", `<!DOCTYPE feedback SYSTEM "file:///etc/passwd"><feedback/>`, "document type declaration"},
		{"gzip bomb", gzipped(t, feedback(head+lots)), "inflates to much more than a report: more than 200 times its size"},
		{"zip bomb", zipped(t, feedback(head+lots)), "more than 200 times its size"},
		{"too much in one file", zipped(t, plain(), feedbackOf(random(7<<18))), "more than 1572864 octets"},
		{"zip of zips of zips", nested, "an archive in an archive in an archive"},
		{"too many files", zipped(t, make([]string, 250)...), "more than 200 parts"},
		{"files that share octets", overlapping(t, 150), "share their octets"},
		{"large archive", zipped(t, random(3<<20)), "a zip archive larger than 1572864 octets"},
		{"broken zip", zipped(t, plain())[:300], "zip: "},
		{"broken gzip", gzipped(t, plain())[:300], "it ends before </feedback>"},
		{"mails in mails", deep(20), "within each other"},
		{"long header", "Subject: " + strings.Repeat("x", 300<<10) + "\n\n", "longer than 262144 octets"},
		{"truncated", plain()[:len(plain())-100], "it ends before </feedback>"},
		{"long text", feedback("<a>" + strings.Repeat("x", 100<<10) + "</a>"), "longer than 65536 octets"},
		{"long tag", "<feedback><" + strings.Repeat("x", 100<<10) + "></feedback>", "longer than 65536 octets"},
		{"long comment", "<feedback><!--" + strings.Repeat("<", 100<<10) + "--></feedback>", "longer than 65536 octets"},
		{"deep", "<feedback>" + strings.Repeat("<a>", 100), "elements more than 32 deep"},
		{"too many rows", feedback(head + strings.Repeat(row, 11)), "more than 10 rows"},
		{"no dates", feedback(strings.ReplaceAll(head, "date_range", "x")), "no usable date_range"},
		{"dates of another kind", feedback(strings.Replace(head, "1700006400", "soon", 1)), `begin "soon"`},
		{"dates that are no numbers", feedback(strings.NewReplacer("1700006400", "NaN", "1700092799", "NaN").Replace(head)), `begin "NaN"`},
		{"ends before it begins", feedback(strings.Replace(head, "1700006400", "1700199999", 1)), "no usable date_range"},
		{"no domain", feedback(strings.Replace(head, "<domain>example.com</domain>", "", 1)), "does not name the domain"},
		{"unknown charset", strings.Replace(plain(), `"1.0"`, `"1.0" encoding="EBCDIC-XY"`, 1), `"ebcdic-xy", which is unknown; convert it to UTF-8`},
		{"other XML", "<html><body>hello</body></html>", "it is no DMARC aggregate report"},
		{"other JSON", `{"hello":"world"}`, "it is no TLS report"},
		{"long JSON", `{"x":"` + strings.Repeat("x", 1<<16) + `"}`, "JSON: longer than 65536 octets"},
		{"a text", "hello, this is no report\n", "there is no report in it"},
		{"empty", "", "it is empty"},
		{"control character", feedback(head + "<a>\x01</a>"), "XML: line 2: illegal character code"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := readText(t, test.text, small)
			if len(got.problems) != 1 || !strings.Contains(got.problems[0], test.want) || len(got.problems[0]) > 300 || got.Failed != 1 {
				t.Errorf("got %q, want %q", got.problems, test.want)
			}
		})
	}
	good := readText(t, mailOf("application/zip", "a.zip", zipped(t, "<feedback>", plain(), nested)), Limits{})
	if len(good.reports) != 1 || len(good.problems) != 2 {
		t.Errorf("beside what is broken: %d reports, %q", len(good.reports), good.problems)
	}
}

// Mails that strangers send to the address for reports, with other documents attached, are
// no faulty reports.
func TestOtherDocuments(t *testing.T) {
	folder := t.TempDir()
	for i, text := range []string{"<!DOCTYPE html>\n<html><body>pay &copy; now</body></html>", "<svg xmlns='http://www.w3.org/2000/svg'/>", `{"hello":"world"}`} {
		write(t, filepath.Join(folder, fmt.Sprint(2*i)), mailOf("application/octet-stream", "invoice", text))
		write(t, filepath.Join(folder, fmt.Sprint(2*i+1)), text)
	}
	got := newFound(Limits{})
	if err := got.Path(t.Context(), folder); err != nil || got.problems != nil || got.Failed != 0 || got.Others != 6 {
		t.Errorf("%v, %q, %d of 6 are others", err, got.problems, got.Others)
	}
}

// random is text that cannot be compressed much.
func random(n int) string {
	out := make([]byte, n)
	state := uint64(88172645463325252)
	for i := range out {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		out[i] = 'a' + byte(state>>32)%26
	}
	return string(out)
}

// feedbackOf is a report with much text in small pieces.
func feedbackOf(text string) string {
	var out strings.Builder
	for len(text) > 0 {
		n := min(len(text), 1000)
		out.WriteString("<x>" + text[:n] + "</x>")
		text = text[n:]
	}
	return feedback(head + out.String())
}

// What reporters write that the standards do not have.
func TestQuirks(t *testing.T) {
	row := rowXML("192.0.2.1", 2, "fail", "fail")
	tests := []struct {
		name, text string
		want       func(*Report) any
		is         any
	}{
		{"address in angle brackets", strings.Replace(head, "r@receiver.example", "<r@receiver.example>", 1) + row, func(r *Report) any { return r.Email }, "<r@receiver.example>"},
		{"less-than in a name", head + strings.Replace(row, "<header_from>example.com", "<header_from>bad<xml.net", 1), func(r *Report) any { return r.Groups[0].From }, "bad<xml.net"},
		{"ampersand", strings.Replace(head, ">Receiver<", ">R & D &unknown; &amp; Sons<", 1), func(r *Report) any { return r.Org }, "R & D &unknown; & Sons"},
		{"no name", strings.Replace(head, ">Receiver<", "><", 1), func(r *Report) any { return r.Org }, "r@receiver.example"},
		{"no UTF-8", strings.Replace(head, ">Receiver<", ">R\xffceiver<", 1), func(r *Report) any { return r.Org }, "R\ufffdceiver"},
		{"control and direction characters are kept", strings.Replace(head, ">Receiver<", ">a&#x202e;b&#x9b;c<", 1), func(r *Report) any { return r.Org }, "a\u202eb\u009bc"},
		{"long name", strings.Replace(head, ">Receiver<", ">"+strings.Repeat("ä", 5000)+"<", 1), func(r *Report) any { return r.Org }, strings.Repeat("ä", 256)},
		{"dates with fractions", strings.Replace(head, "1700006400", " 1700006400.5 ", 1), func(r *Report) any { return r.Begin.Unix() }, int64(1700006400)},
		{"dates in milliseconds", strings.Replace(head, "1700006400", "1700006400000", 1), func(r *Report) any { return r.Begin.Unix() }, int64(1700006400)},
		{"dates as text", strings.Replace(head, "1700006400", "2023-11-15 00:00:00", 1), func(r *Report) any { return r.Begin.Unix() }, int64(1700006400)},
		{"address of IPv4 in IPv6", head + rowXML("::ffff:192.0.2.1", 1, "pass", "pass"), func(r *Report) any { return r.Groups[0].Source.String() }, "192.0.2.1"},
		{"blanks", head + rowXML(" 192.0.2.1\n", 1, "pass", "pass"), func(r *Report) any { return r.Groups[0].Source.String() }, "192.0.2.1"},
		{"no author", head + strings.Replace(row, "<header_from>example.com</header_from>", "", 1), func(r *Report) any { return r.Groups[0].From }, "example.com"},
		{"identities", head + strings.ReplaceAll(strings.Replace(row, ">example.com</header", ">a.example.com</header", 1), "identifiers", "identities"), func(r *Report) any { return r.Groups[0].From }, "a.example.com"},
		{"negative count", head + rowXML("192.0.2.1", -5, "pass", "pass") + row, func(r *Report) any { return fmt.Sprint(r.Messages, r.Unusable, " ", r.UnusableWhy) }, `2 1 row 1: count is "-5"`},
		{"huge count", head + strings.Replace(row, "<count>2", "<count>99999999999999999999", 1), func(r *Report) any { return r.Unusable }, 1},
		{"host name as source", head + rowXML("mail.example.net", 5, "pass", "pass") + row, func(r *Report) any { return fmt.Sprint(r.Messages, " ", r.UnusableWhy) }, `2 row 1: source_ip is "mail.example.net"`},
		{"no verdicts", head + strings.NewReplacer("<dkim>pass</dkim>", "", "<spf>pass</spf>", "").Replace(rowXML("192.0.2.1", 1, "pass", "pass")), func(r *Report) any { return fmt.Sprint(r.Groups[0].DKIM, r.Groups[0].SPF) }, "true false"},
		{"markup as text", head + strings.Replace(row, ">s1<", "><script>alert(1)</script>=cmd()<", 1), func(r *Report) any { return strings.Contains(r.Groups[0].Why, "selector =cmd()") }, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := readText(t, feedback(test.text), Limits{})
			if len(got.reports) != 1 || got.problems != nil {
				t.Fatalf("%d reports, %q", len(got.reports), got.problems)
			}
			if is := test.want(got.reports[0]); is != test.is {
				t.Errorf("got %v, want %v", is, test.is)
			}
		})
	}
}

// The text of the forms that RFC 9990 has added.
func TestNewForm(t *testing.T) {
	text := `<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0"><version>1.0</version><report_metadata><org_name>R</org_name><report_id>x</report_id><date_range><begin>302832000</begin><end>302918399</end></date_range><error>a</error><error>b</error><generator>G 1</generator></report_metadata>
<policy_published><domain>Example.COM.</domain><discovery_method>treewalk</discovery_method><p>quarantine</p><sp>none</sp><np>reject</np><fo>1</fo><adkim>s</adkim><aspf>r</aspf><testing>y</testing></policy_published>
<record><row><source_ip>2001:db8::2</source_ip><count>7</count><policy_evaluated><disposition>pass</disposition><dkim>fail</dkim><spf>fail</spf><reason><type>mailing_list</type><comment>a list</comment></reason><reason><type/></reason></policy_evaluated></row><identifiers><header_from>example.com</header_from></identifiers>
<auth_results><dkim><domain>list.example</domain><selector>a</selector><result>pass</result></dkim><dkim><domain>example.com</domain><selector>b</selector><result>fail</result><human_result>body hash</human_result></dkim><spf><domain>list.example</domain><scope>mfrom</scope><result>pass</result></spf></auth_results></record></feedback>`
	got := readText(t, text, Limits{})
	if len(got.reports) != 1 {
		t.Fatal(got.problems)
	}
	r := got.reports[0]
	if p := r.Policy; p.Domain != "example.com" || p.String() != "p=quarantine; sp=none; np=reject; adkim=s; t=y" || p.Discovery != "treewalk" || p.FO != "1" {
		t.Errorf("policy %+v", p)
	}
	if r.Generator != "G 1" || !reflect.DeepEqual(r.Errors, []string{"a", "b"}) || r.Begin.Year() != 1979 {
		t.Errorf("head %+v", r)
	}
	const why = "DKIM: fail for example.com, selector b (body hash); pass for list.example, not aligned; SPF: pass for list.example, not aligned; override: mailing_list (a list)"
	if g := r.Groups[0]; len(r.Groups) != 1 || g.Why != why || g.Disposition != "none" || g.Passed() || g.Messages != 7 {
		t.Errorf("row %+v", r.Groups)
	}
}

// Records from more sources than are kept apart: the others count together, and
// memory is bounded.
func TestManyRecords(t *testing.T) {
	const rows, most = 21_000, 20_000
	in, out := io.Pipe()
	go func() {
		z := gzip.NewWriter(out)
		_, err := io.WriteString(z, "<feedback>"+head)
		for i := range rows {
			_, werr := io.WriteString(z, rowXML(fmt.Sprintf("2001:db8::%x:%x", i>>16, i&0xffff), 2, "fail", "fail"))
			err = errors.Join(err, werr)
		}
		_, werr := io.WriteString(z, "</feedback>")
		out.CloseWithError(errors.Join(err, werr, z.Close()))
	}()
	before := heap()
	got := newFound(Limits{Groups: most})
	if err := got.Stream(t.Context(), "in", in); err != nil || len(got.reports) != 1 {
		t.Fatal(err, got.problems)
	}
	tally := &Tally{Limits: Limits{Groups: most}}
	tally.Add(got.reports[0])
	sum := tally.Summary()
	if used := int64(heap() - before); used > 32<<20 {
		t.Errorf("%d MiB are in use", used>>20)
	}
	d := sum.Domains[0]
	if d.Messages != 2*rows || len(d.Sources) != most/4+1 || d.Sources[0].Address != "" || d.Sources[0].Messages != 2*(rows-most/4) {
		t.Errorf("%d mails of %d sources, the first %+v", d.Messages, len(d.Sources), d.Sources[0])
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// endless repeats a text for ever.
type endless struct {
	text string
	read int64
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text[e.read%int64(len(e.text)):])
	e.read += int64(n)
	return n, nil
}

// Streams without an end are refused after their bounds.
func TestEndless(t *testing.T) {
	limits := Limits{Inflated: 1 << 20, Archive: 1 << 18, JSON: 1 << 18, Rows: 100}
	for name, test := range map[string]struct {
		start, more, want string
	}{
		"text":    {"<feedback>", "x", "longer than"},
		"tags":    {"<feedback>", "<a></a>", "longer than any report"},
		"records": {"<feedback>" + head, rowXML("192.0.2.1", 1, "pass", "pass"), "more than 100 rows"},
		"zip":     {"PK\x03\x04", "x", "a zip archive larger"},
		"json":    {`{"x":`, "[", "JSON: longer"},
		"header":  {"Subject: x\n", "X: y\n", "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			in := &endless{text: test.more}
			got := newFound(limits)
			if err := got.Stream(t.Context(), name, io.MultiReader(strings.NewReader(test.start), in)); err != nil {
				t.Fatal(err)
			}
			if len(got.problems) != 1 || !strings.Contains(got.problems[0], test.want) || in.read > 2<<20 {
				t.Errorf("after %d octets: %q", in.read, got.problems)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in := &endless{text: "From x\n<feedback>\n\n"}
	got := newFound(Limits{})
	got.Problem = func(string, error) { cancel() }
	if err := got.Stream(ctx, "in", in); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What is not read any more is no damaged report, wherever the reading ends.
func TestCancelledInAPart(t *testing.T) {
	text := "From a\n" + mailOf("application/gzip", "a.gz", gzipped(t, plain())) + "\n"
	for end := range len(text) / 100 {
		ctx, cancel := context.WithCancel(t.Context())
		got := newFound(Limits{})
		in := &ending{in: strings.NewReader(text), left: end * 100, end: cancel}
		if err := got.Stream(ctx, "in", in); !errors.Is(err, context.Canceled) || len(got.problems) > 0 || got.Failed+got.Odd > 0 {
			t.Fatalf("ended after %d octets: %v, %q, failed %d, odd %d", end*100, err, got.problems, got.Failed, got.Odd)
		}
	}
}

// ending calls end when some octets were read.
type ending struct {
	in   io.Reader
	left int
	end  func()
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.in.Read(p[:min(len(p), 100)])
	if e.left -= n; e.left < 0 {
		e.end()
	}
	return n, err
}

// A mailbox is read mail by mail: what is wrong with one stays there.
func TestMailbox(t *testing.T) {
	long := strings.Repeat("y", 10_000)
	box := "From a " + long + "\n" + mailOf("application/zip", "a.zip", zipped(t, plain())) + "\n" +
		"From b\nSubject: hello\n\nNo report.\nFrom here on.\n" + long + "\n\n" +
		"From c\n" + mailOf("application/gzip", "b.gz", gzipped(t, plain())[:100]) + "\n" +
		"From d\n" + bareMail(zipped(t, strings.Replace(plain(), "<report_id>1", "<report_id>2", 1)))
	got := readText(t, box, Limits{})
	if len(got.reports) != 2 || got.reports[1].ID != "2" || got.Files != 4 || got.Others != 1 {
		t.Errorf("%d reports of %d mails, %d without", len(got.reports), got.Files, got.Others)
	}
	if len(got.problems) != 1 || !strings.HasPrefix(got.problems[0], `in: mail 3: "b.gz": `) {
		t.Errorf("problems %q", got.problems)
	}
}

// A compressed mailbox that is cut off is not read without a word.
func TestMailboxCutOff(t *testing.T) {
	box := gzipped(t, "From r\n"+bareMail(zipped(t, plain()))+"\nFrom a\nSubject: no report\n\n"+random(8<<10))
	got := readText(t, box[:len(box)-2000], Limits{})
	if len(got.reports) != 1 || len(got.problems) != 1 || got.problems[0] != "in: mailbox: unexpected EOF" {
		t.Errorf("%d reports, %q", len(got.reports), got.problems)
	}
}

// Folders are read with those below them; of a Maildir what was delivered.
func TestFolders(t *testing.T) {
	dir := t.TempDir()
	numbered := func(id string) string { return strings.Replace(plain(), "<report_id>1", "<report_id>"+id, 1) }
	write(t, dir+"/a.xml", numbered("a"))
	write(t, dir+"/below/b.xml.gz", gzipped(t, numbered("b")))
	write(t, dir+"/README", "what this folder is for\n")
	write(t, dir+"/.hidden/x.xml", numbered("x"))
	write(t, dir+"/.x.xml", numbered("x"))
	write(t, dir+"/Maildir/cur/1.a:2,S", mailOf("application/zip", "a.zip", zipped(t, numbered("c"))))
	write(t, dir+"/Maildir/new/2.a", mailOf("application/zip", "a.zip", zipped(t, numbered("d"))))
	write(t, dir+"/Maildir/tmp/3.a", mailOf("application/zip", "a.zip", zipped(t, numbered("x"))))
	write(t, dir+"/Maildir/dovecot.index", "x")
	write(t, dir+"/Maildir/.Reports/cur/4.a", mailOf("application/zip", "a.zip", zipped(t, numbered("e"))))
	write(t, dir+"/Maildir/.Reports/new/.keep", "")
	if err := os.Symlink(dir, dir+"/loop"); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for root, want := range map[string]string{dir: "c d e a b", link: "c d e a b", dir + "/Maildir": "c d e", dir + "/Maildir/.Reports": "e"} {
		got := newFound(Limits{})
		if err := got.Path(t.Context(), root); err != nil {
			t.Fatal(err)
		}
		ids := make(map[string]bool)
		for _, r := range got.reports {
			ids[r.ID] = true
		}
		for id := range strings.FieldsSeq(want) {
			if !ids[id] {
				t.Errorf("%s: %s is missing", root, id)
			}
		}
		if len(got.reports) != len(strings.Fields(want)) || got.problems != nil {
			t.Errorf("%s: %v, %q", root, ids, got.problems)
		}
	}
	got := newFound(Limits{})
	if err := got.Paths(t.Context(), []string{dir + "/missing", dir + "/README", dir + "/a.xml"}); err != nil || len(got.problems) != 2 || len(got.reports) != 1 {
		t.Errorf("%v, %q, %d reports", err, got.problems, len(got.reports))
	}
}

// A folder that cannot be read is a problem, and the others are read.
func TestFolderUnreadable(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(root.MkdirAll("a"+strings.Repeat("/"+strings.Repeat("x", 200), 30), 0o700), root.Close()); err != nil { // root can read any but this
		t.Fatal(err)
	}
	write(t, dir+"/b.xml", plain())
	got := newFound(Limits{})
	if err := got.Path(t.Context(), dir); err != nil || len(got.reports) != 1 || len(got.problems) != 1 || !strings.HasSuffix(got.problems[0], "file name too long") {
		t.Errorf("%v, %d reports, %.500q", err, len(got.reports), got.problems)
	}
}

// What a caller's function returns ends the reading.
func TestCallersError(t *testing.T) {
	full := errors.New("the disk is full")
	got := newFound(Limits{})
	got.DMARC = func(*Report) error { return full }
	if err := got.Stream(t.Context(), "in", strings.NewReader(mailOf("application/zip", "a.zip", zipped(t, plain())))); !errors.Is(err, full) || got.problems != nil {
		t.Errorf("got %v, %q", err, got.problems)
	}
}

func TestDay(t *testing.T) {
	at := func(text string) time.Time {
		day, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return day
	}
	for _, test := range []struct{ begin, end, want string }{
		{"2026-11-25T00:00:00Z", "2026-11-25T23:59:59Z", "2026-11-25"},
		{"2026-11-24T18:00:00Z", "2026-11-25T17:59:59Z", "2026-11-25"}, // a day in Asia
		{"2026-11-25T08:00:00Z", "2026-11-26T08:00:00Z", "2026-11-25"}, // in America
		{"2026-11-25T10:00:00Z", "2026-11-25T10:00:00Z", "2026-11-25"},
	} {
		if got := (&Report{Begin: at(test.begin), End: at(test.end)}).Day().Format(time.DateOnly); got != test.want {
			t.Errorf("%s to %s: %s", test.begin, test.end, got)
		}
	}
}
