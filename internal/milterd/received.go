package milterd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/reportread"
)

// defaultReceived is the file that the manual keeps received reports in.
const defaultReceived = "/var/lib/postern/received.db"

// receivedPart is the part for the DMARC reports of other receivers about our mail. It
// reads the file in which `postern dmarc read --store` keeps them.
type receivedPart struct {
	ReceivedReports string

	reader *receivedReader // nil if there is no file to read
}

func (o *receivedPart) bind(fs *pflag.FlagSet) {
	fs.StringVar(&o.ReceivedReports, "received-reports", defaultReceived, "`file` with the DMARC reports that postern dmarc read has stored, from which the status page shows who sends as our domains; it need not exist; \"\" for none")
}

func (o *receivedPart) validate(s *config.Set) error {
	path := strings.TrimPrefix(o.ReceivedReports, sqliteScheme)
	if path == "" {
		return nil
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return s.Errorf("received-reports", "%q is no absolute path; write the path of dmarc read --store, as %s", o.ReceivedReports, defaultReceived)
	}
	return nil
}

// build does not look at the file: it may come later, and no mail needs it.
func (o *receivedPart) build(n *needs) error {
	if path := strings.TrimPrefix(o.ReceivedReports, sqliteScheme); path != "" {
		o.reader = newReceivedReader(path, n.keys.Domains())
	}
	return nil
}

func receivedCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{api.DMARCSenders: command(c, (*receivedPart).senders)}
}

func (o *receivedPart) senders(ctx context.Context, _ struct{}, _ func(any)) (any, error) {
	if o.reader == nil {
		return (*api.DMARCSendersResult)(nil), nil
	}
	return o.reader.read(ctx)
}

// Bounds of what is read and shown.
const (
	receivedDays    = 30
	receivedSources = 20_000 // in memory while the file is read
	receivedTexts   = 8 << 20
	shownDomains    = 10
	shownSources    = 8 // of a domain
	shownReporters  = 5
	shownReasons    = 3 // of a source
)

// receivedShare is how many times longer than it took to read the file is the pause
// before the next reading: reading needs at most 1 % of the time.
const receivedShare = 100

// receivedReader reads the file again when it has changed.
type receivedReader struct {
	path string
	ours []string // domains, sorted
	now  func() time.Time

	reading chan struct{} // has a value while someone uses what is below
	file    fs.FileInfo   // as it was read; nil while nothing was
	next    time.Time     // the file is not read before
	result  api.DMARCSendersResult
}

func newReceivedReader(path string, ours []string) *receivedReader {
	return &receivedReader{path: path, ours: ours, now: time.Now, reading: make(chan struct{}, 1)}
}

// read returns what is in the file. If the file cannot be read, the result says why.
func (r *receivedReader) read(ctx context.Context) (*api.DMARCSendersResult, error) {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now := r.now()
	since := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, -receivedDays)
	if r.result.Domains == nil {
		r.result = r.none(since)
	}
	info, err := os.Stat(r.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.file, r.next, r.result = nil, time.Time{}, r.none(since)
	case err != nil:
		r.result.Error = err.Error()
	case now.Before(r.next) || r.result.Error == "" && r.result.Since == since.Format(time.DateOnly) && sameFile(r.file, info):
	default:
		r.again(ctx, info, since)
	}
	result := r.result
	return &result, nil
}

// sameFile reports whether a file is the one that was read, and was not written since.
func sameFile(was, is fs.FileInfo) bool {
	return was != nil && os.SameFile(was, is) && was.ModTime().Equal(is.ModTime()) && was.Size() == is.Size()
}

func (r *receivedReader) none(since time.Time) api.DMARCSendersResult {
	return api.DMARCSendersResult{File: r.path, Since: since.Format(time.DateOnly), Domains: []api.DMARCDomain{}}
}

// again reads the file. What it had before is kept if that fails.
func (r *receivedReader) again(ctx context.Context, info fs.FileInfo, since time.Time) {
	began := r.now()
	sum, err := reportread.Stored(ctx, r.path, &reportread.Tally{Since: since, NoTLS: true, Limits: reportread.Limits{Groups: receivedSources, Texts: receivedTexts}})
	ended := r.now()
	r.next = ended.Add(receivedShare * ended.Sub(began))
	switch {
	case ctx.Err() != nil:
		r.result.Error = r.path + ": it takes too long to read; keep fewer reports in it (--keep-days)"
		return
	case err != nil:
		r.result.Error = err.Error()
		return
	}
	sum.BySender()
	changed := info.ModTime()
	r.file, r.result = info, r.none(since)
	r.result.Changed = &changed
	r.result.Domains, r.result.More = sendersOf(sum, r.ours)
}
