package milterd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/internal/logging"
)

// How the hold queue is watched. It is asked seldom, because showq(8) looks at every
// file of every queue.
const (
	holdInterval = time.Minute
	holdTimeout  = 20 * time.Second
	maxShowq     = 256 << 20 // octets of one answer, about 300 for each message
	maxShowqText = 64 << 10  // octets of one name or value
)

// holdQueue counts the messages in Postfix's hold queue. Postfix never empties this
// queue itself: an administrator has to release or delete each message.
type holdQueue struct {
	socket string
	log    *logging.StateLog
	count  atomic.Int64 // -1 while it is unknown
}

// newHoldQueue returns a watch for the Postfix with this queue directory.
func newHoldQueue(queueDirectory string, log *zap.Logger) *holdQueue {
	q := &holdQueue{
		socket: filepath.Join(queueDirectory, "public/showq"),
		log:    logging.NewStateLog(log, "Postfix's hold queue", wordCounted),
	}
	q.count.Store(-1)
	return q
}

// States of the watch, for the log.
const (
	wordCounted    = "counted"
	wordNotCounted = "cannot be counted"
)

// run counts until ctx ends.
func (q *holdQueue) run(ctx context.Context) {
	tick := time.NewTicker(holdInterval)
	defer tick.Stop()
	for {
		q.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look counts once.
func (q *holdQueue) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	n, err := q.listQueues(ctx)
	switch {
	case err == nil:
		q.count.Store(n)
		q.log.Report(zapcore.InfoLevel, wordCounted)
	case !errors.Is(ctx.Err(), context.Canceled):
		q.count.Store(-1)
		q.log.Report(zapcore.WarnLevel, wordNotCounted, zap.Error(err),
			zap.String("fix", "let the daemon into the group postdrop (SupplementaryGroups=postdrop) and set queue-directory to what postconf -h queue_directory prints"))
	}
}

// listQueues asks showq for the list of all queues.
func (q *holdQueue) listQueues(ctx context.Context) (int64, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", q.socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	n, err := countHeld(conn)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", q.socket, err)
	}
	return n, nil
}

// countHeld counts held messages in the output of showq. Each message is a list of
// names and values, each followed by a NUL, with an empty name at its end. One more
// empty name follows the last message. The first list is a greeting.
func countHeld(r io.Reader) (int64, error) {
	bounded := &io.LimitedReader{R: r, N: maxShowq}
	in := bufio.NewReaderSize(bounded, maxShowqText)
	held := int64(0)
	for empty := 0; empty < 2; {
		name, err := showqText(in)
		if err != nil {
			return 0, errors.Join(errShowq, err)
		}
		if name == "" {
			empty++
			continue
		}
		empty = 0
		value, err := showqText(in)
		if err != nil {
			return 0, errors.Join(errShowq, err)
		}
		if name == "queue_name" && value == "hold" {
			held++
		}
	}
	return held, nil
}

var errShowq = errors.New("not the whole answer of Postfix's showq")

func showqText(in *bufio.Reader) (string, error) {
	text, err := in.ReadSlice(0)
	if err != nil {
		return "", err
	}
	return string(text[:len(text)-1]), nil
}
