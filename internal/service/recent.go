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
	// logBatchBytes is how much of the records is sent in one line.
	logBatchBytes = 256 << 10
	// logWait is how long a command waits for a record before it ends with none.
	// Whoever follows asks again.
	logWait = 20 * time.Second
)

// recent is the memory of this process's last records.
type recent struct {
	*logging.Recent
	run     string        // names the process
	leaving chan struct{} // closed when those who wait for a record have to go
}

func newRecent() *recent {
	return &recent{Recent: logging.NewRecent(), run: rand.Text(), leaving: make(chan struct{})}
}

// show answers with the records that are remembered.
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

// await returns when there is a record behind a number, or no time to wait for it.
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
