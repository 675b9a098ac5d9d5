package reportread

import (
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
)

// Bounds of the content of containers.
const (
	maxCompressions = 2       // archives within archives
	maxDepth        = 8       // containers and mails within each other
	maxParts        = 200     // parts of a mail, files of an archive
	freeInflation   = 1 << 20 // octets before the ratio counts
	maxPrologue     = 512     // octets that decide the form
)

// The reasons why something is not read.
var (
	errNoReport = errors.New("there is no report in it; name DMARC or TLS reports (XML, JSON, gz, zip), mails, mailboxes or folders of them")
	errBomb     = errors.New("it inflates to much more than a report")
	errNested   = errors.New("an archive in an archive in an archive; unpack it, and read what is in it")
	errDepth    = errors.New("too many mails and archives within each other")
	errParts    = fmt.Errorf("more than %d parts; unpack them, and read the folder", maxParts)
	errLong     = errors.New("the document is longer than any report")
	errEmpty    = errors.New("it is empty")
)

// isOther reports whether an error says that something is no report at all. It is no
// fault of a mail that it has a web page attached.
func isOther(err error) bool {
	return errors.Is(err, errNoReport) || errors.Is(err, errNoFeedback) || errors.Is(err, errNoPolicies)
}

// form is the form of a stream, from its first octets. File names and content types are
// not used for this, because the sender can choose any.
type form int

const (
	formOther form = iota
	formEmpty
	formGzip
	formZip
	formXML
	formJSON
	formMail
	formMbox
)

// buffered is a stream that can be peeked into.
type buffered = bufio.Reader

func newBuffered(in io.Reader) *buffered { return bufio.NewReaderSize(in, 4096) }

var (
	fieldLine = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{1,76}:`)
	marks     = []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} // byte order marks
)

func sniff(in *buffered) form {
	start, _ := in.Peek(maxPrologue)
	switch {
	case len(start) == 0:
		return formEmpty
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		return formGzip
	case bytes.HasPrefix(start, []byte("PK\x03\x04")), bytes.HasPrefix(start, []byte("PK\x05\x06")):
		return formZip
	case bytes.HasPrefix(start, []byte("From ")):
		return formMbox
	case fieldLine.Match(start):
		return formMail
	}
	for _, mark := range marks {
		start = bytes.TrimPrefix(start, []byte(mark))
	}
	switch start = bytes.TrimLeft(start, " \t\r\n\x00"); {
	case bytes.HasPrefix(start, []byte("<")):
		return formXML
	case bytes.HasPrefix(start, []byte("{")):
		return formJSON
	}
	return formOther
}

// unit is one file or mail, with the bounds that are left for reading it.
type unit struct {
	reader       *Reader
	limits       Limits
	ended        func() error // why the reading is to end, nil while it is not
	left         int64        // octets that may still be inflated
	parts        int
	compressions int // archives around what is being read
	found        int // reports
	failed       int // parts that could not be read

	strange bool // it is a mail that was not named as an argument: anyone may have sent it
	report  bool // something shows that it is to be a report, see signs.go
	odd     bool // something could not be read, and is no problem
}

// open reads a stream according to its form. An error is about the whole stream.
func (u *unit) open(where string, in *buffered, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	switch sniff(in) {
	case formEmpty:
		return errEmpty
	case formGzip:
		return u.compressed(func() error { return u.gunzip(where, in, depth) })
	case formZip:
		return u.compressed(func() error { return u.unzip(where, in, depth) })
	case formXML:
		return u.dmarc(in)
	case formJSON:
		return u.tls(in)
	case formMail:
		return u.mail(where, in, depth)
	case formMbox:
		box := newMbox(in)
		for box.next() {
			u.parts = 0
			if err := u.part(where, newBuffered(box), depth); err != nil {
				return err
			}
		}
		return box.failed()
	}
	return errNoReport
}

// part reads one part of a container. If the part is faulty, the others are still read.
func (u *unit) part(where string, in *buffered, depth int) error {
	if u.parts++; u.parts > maxParts {
		return errParts
	}
	return u.survive(where, u.open(where, in, depth+1))
}

// survive notes why one part of a container was not read, and returns the error if the
// others cannot be read either.
func (u *unit) survive(where string, err error) error {
	if ended := u.ended(); ended != nil {
		return errStop{ended} // the rest of a part that is not read looks damaged, or empty
	}
	if err == nil || isOther(err) {
		return nil
	}
	if stop := (errStop{}); errors.As(err, &stop) || u.left <= 0 {
		return err
	}
	if u.isOdd(err) {
		u.noteOdd(where, err)
		return nil
	}
	u.failed++
	u.reader.Failed++
	if u.reader.Problem != nil {
		u.reader.Problem(where, err)
	}
	return nil
}

func (u *unit) dmarc(in *buffered) error {
	document := newBuffered(&pieces{in: in, left: u.limits.Inflated, err: errLong})
	report, err := parseAggregate(document, u.limits)
	if err != nil {
		u.report = u.report || errors.As(err, &damaged{})
		return err
	}
	u.found++
	return stopOn(u.reader.DMARC, report)
}

func (u *unit) tls(in *buffered) error {
	report, err := parseTLS(in, u.limits)
	if err != nil {
		return err
	}
	u.found++
	return stopOn(u.reader.TLS, report)
}

func stopOn[T any](take func(T) error, report T) error {
	if take == nil {
		return nil
	}
	if err := take(report); err != nil {
		return errStop{err}
	}
	return nil
}

// compressed bounds the depth of archives within archives.
func (u *unit) compressed(read func() error) error {
	if u.compressions == maxCompressions {
		return errNested
	}
	u.compressions++
	defer func() { u.compressions-- }()
	return read()
}

func (u *unit) gunzip(where string, in *buffered, depth int) error {
	counted := &counter{in: in}
	packed := bufio.NewReader(counted)
	z, err := gzip.NewReader(packed)
	if err != nil {
		return fmt.Errorf("gzip: %w", err)
	}
	z.Multistream(false)
	return u.open(where, newBuffered(u.inflating(&members{packed, z}, func() int64 { return counted.n })), depth+1)
}

// members reads the members of a gzip file. Data after the last member is ignored,
// because mail programs and mailing lists append lines.
type members struct {
	packed *bufio.Reader
	z      *gzip.Reader
}

func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.z.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		if magic, _ := m.packed.Peek(2); !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
			return 0, io.EOF
		}
		if err := m.z.Reset(m.packed); err != nil {
			return 0, err
		}
		m.z.Multistream(false)
	}
}

func (u *unit) unzip(where string, in *buffered, depth int) error {
	packed, err := io.ReadAll(io.LimitReader(in, u.limits.Archive+1))
	if err != nil {
		return err
	}
	if int64(len(packed)) > u.limits.Archive {
		return fmt.Errorf("a zip archive larger than %d octets; unpack it, and read the folder", u.limits.Archive)
	}
	if bytes.Count(packed, []byte("PK\x01\x02")) > maxParts { // checked before the directory is built in memory
		return errParts
	}
	archive, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return fmt.Errorf("zip: %w", err)
	}
	if overlap(archive.File, uint64(len(packed))) {
		return fmt.Errorf("%w: files of the archive share their octets", errBomb)
	}
	for _, file := range archive.File {
		if file.FileInfo().IsDir() || strings.HasPrefix(file.Name, "__MACOSX/") {
			continue
		}
		if err := u.zipped(fmt.Sprintf("%s: %.200q", where, path.Base(file.Name)), file, depth); err != nil {
			return err
		}
	}
	return nil
}

// overlap reports whether the files of an archive are longer than the archive. A few
// octets that many files share would inflate again for each of them.
func overlap(files []*zip.File, size uint64) bool {
	for _, file := range files {
		if file.CompressedSize64 > size {
			return true
		}
		size -= file.CompressedSize64
	}
	return false
}

func (u *unit) zipped(where string, file *zip.File, depth int) error {
	in, err := file.Open()
	if err != nil {
		return fmt.Errorf("zip: %w", err)
	}
	defer in.Close()
	size := int64(min(file.CompressedSize64, uint64(u.limits.Archive)))
	return u.part(where, newBuffered(u.inflating(in, func() int64 { return size })), depth)
}

// inflating bounds the output of a compressed stream. packed returns how many octets of
// its input were read.
func (u *unit) inflating(in io.Reader, packed func() int64) io.Reader {
	return &inflated{unit: u, in: in, packed: packed}
}

type inflated struct {
	unit   *unit
	in     io.Reader
	packed func() int64
	n      int64
}

func (i *inflated) Read(p []byte) (int, error) {
	n, err := i.in.Read(p)
	i.n += int64(n)
	i.unit.left -= int64(n)
	if i.unit.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d octets", errBomb, i.unit.limits.Inflated)
	}
	if i.n > freeInflation && i.n > i.unit.limits.Ratio*i.packed() {
		return 0, fmt.Errorf("%w: more than %d times its size", errBomb, i.unit.limits.Ratio)
	}
	return n, err
}

type counter struct {
	in io.Reader
	n  int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}
