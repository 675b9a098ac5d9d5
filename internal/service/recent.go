package service

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/logging"
)

const (
	// logBatchBytes is how many bytes of records are sent in one line.
	logBatchBytes = 256 << 10
	// logWait is how long a command waits for a record before it ends with none.
	// A client that follows the log then asks again.
	logWait = 20 * time.Second
)

// recent answers questions about this process's last records.
type recent struct {
	*logging.Recent
	run     string        // identifies the process
	leaving chan struct{} // closed when waiting for a record must end
}

func newRecent() *recent {
	return &recent{Recent: logging.NewRecent(), run: rand.Text(), leaving: make(chan struct{})}
}

// show answers with the remembered records.
func (r *recent) show(ctx context.Context, args api.LogArgs, progress func(any)) (any, error) {
	result := api.LogResult{Run: r.run}
	if args.Run == r.run {
		result.Next = args.After
	}
	if args.Wait {
		r.await(ctx, result.Next)
	}
	for ctx.Err() == nil {
		some := r.After(result.Next, logBatchBytes)
		result.Next, result.Lost = some.Next, result.Lost+some.Lost
		if len(some.Lines) == 0 {
			break
		}
		lines := make(api.LogLines, len(some.Lines))
		for i, line := range some.Lines {
			lines[i] = json.RawMessage(line)
		}
		progress(lines)
	}
	return result, nil
}

// await returns when there is a record after number, or when it has waited long
// enough.
func (r *recent) await(ctx context.Context, number uint64) {
	limit := time.NewTimer(logWait)
	defer limit.Stop()
	select {
	case <-r.News(number):
	case <-limit.C:
	case <-r.leaving:
	case <-ctx.Done():
	}
}
