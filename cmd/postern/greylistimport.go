package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/greylist/migrate"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func bindGreylistImport(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	postgrey := fs.String("postgrey", "", "`file` with the output of db_dump on postgrey.db or postgrey_clients.db")
	sqlgrey := fs.String("sqlgrey", "", "`file` with sqlgrey's SQLite database, or a SQL dump of any")
	delay := fs.Duration("delay", time.Minute, "postgrey's --delay, if it was shorter: what was seen over this time has passed")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 || (*postgrey == "") == (*sqlgrey == "") {
			return exitFailed, errUsage
		}
		path, read := *postgrey, postgreyReader(*delay)
		if path == "" {
			path, read = *sqlgrey, sqlgreyReader(ctx)
		}
		p := progress{io}
		i := importer{client: client, progress: func(n int) { p.at("%d imported", n) }}
		answer, err := i.file(ctx, path, read)
		p.end()
		if err != nil {
			return exitFailed, fmt.Errorf("%w; %d entries were imported and stay: run the command again, which takes them once", err, answer.Imported)
		}
		if *asJSON {
			return exitYes, printJSON(io.out, answer)
		}
		fmt.Fprintf(io.out, "%d entries imported, %d skipped\n", answer.Imported, answer.Skipped)
		for _, why := range answer.Why {
			fmt.Fprintf(io.out, "  skipped: %s\n", printable(why))
		}
		return exitYes, nil
	}
}

// reader reads the file of another greylisting program and yields its entries.
type reader func(f *os.File, yield func(migrate.Entry) error) (migrate.Summary, error)

// postgreyReader reads the output of db_dump for postgrey's databases. passedAfter is
// postgrey's delay.
func postgreyReader(passedAfter time.Duration) reader {
	return func(f *os.File, yield func(migrate.Entry) error) (migrate.Summary, error) {
		return migrate.Postgrey(f, passedAfter, yield)
	}
}

// sqlgreyReader reads sqlgrey's SQLite database, or an SQL dump of any of its
// databases.
func sqlgreyReader(ctx context.Context) reader {
	return func(f *os.File, yield func(migrate.Entry) error) (migrate.Summary, error) {
		return migrate.SqlgreyFile(ctx, f, time.Local, yield)
	}
}

// A request of the admin protocol can have 64 KiB, and JSON can need six octets for
// one.
const (
	maxImportBatch = 10_000
	importOverhead = 120
)

// importer sends the entries of a file to the daemon, batch by batch.
type importer struct {
	client   *admin.Client
	progress func(imported int) // called after each batch

	batch []api.ImportedEntry
	size  int
	total api.GreylistImportResult
}

func (i *importer) file(ctx context.Context, path string, read reader) (api.GreylistImportResult, error) {
	f, err := os.Open(path)
	if err != nil {
		return i.total, err
	}
	defer f.Close()
	result, err := read(f, func(e migrate.Entry) error { return i.importEntry(ctx, e) })
	i.total.Skipped += result.Skipped
	i.total.Why = append(result.Why, i.total.Why...)
	if err == nil && len(i.batch) > 0 {
		err = i.send(ctx)
	}
	if err != nil {
		return i.total, fmt.Errorf("%s: %w", path, err)
	}
	return i.total, nil
}

// importEntry appends e to the batch, and first sends the batch if it is full.
func (i *importer) importEntry(ctx context.Context, e migrate.Entry) error {
	i.size += len(e.Sender) + len(e.Recipient) + len(e.Domain) + importOverhead
	if len(i.batch) > 0 && i.size > maxImportBatch {
		if err := i.send(ctx); err != nil {
			return err
		}
		i.size = 0
	}
	i.batch = append(i.batch, api.ImportedEntry{
		Client: e.Client, Sender: e.Sender, Domain: e.Domain, Recipient: e.Recipient,
		First: int64(e.First), Last: int64(e.Last), Passed: e.Passed, Passes: e.Passes,
	})
	return nil
}

func (i *importer) send(ctx context.Context) error {
	var r api.GreylistImportResult
	if err := i.client.Call(ctx, api.GreylistImport, api.GreylistImportArgs{Entries: i.batch}, &r, nil); err != nil {
		return err
	}
	i.total.Imported += r.Imported
	i.total.Skipped += r.Skipped
	i.total.Why = append(i.total.Why, r.Why[:min(len(r.Why), api.MaxImportWhy-len(i.total.Why))]...)
	i.batch = i.batch[:0]
	i.progress(i.total.Imported)
	return nil
}
