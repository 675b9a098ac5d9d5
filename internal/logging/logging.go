// Package logging writes the daemons' log. Problems of the disk or of a pipe
// never stop a daemon.
//
// Lines go through zap to stderr or to a file that is opened for appending and
// reopened on SIGHUP. Invariants:
//
//   - A line is written by exactly one write system call, so that lines of
//     concurrent requests never mix. No lock is held during the write.
//   - A write that fails (disk full, reader of a pipe gone) loses its line and
//     is counted. It neither ends nor delays the daemon.
//   - A write that does not end (a pipe whose reader is alive but does not read,
//     a disk that hangs) delays writers for a quarter of a second, once. From
//     then on lines for which there is no room in memory are dropped and counted,
//     until the write ends. A line then reports how many were lost. This needs
//     Batch.
//   - A reopen that fails leaves the log as it is.
//
// Keys that every line has: ts (RFC 3339, UTC, milliseconds), level, msg.
package logging

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Options describe a log. The zero value is a JSON log at level info whose lines
// are discarded.
type Options struct {
	Format string    // "json" (or "") or "console"
	Path   string    // file to append to, created with mode 0640; "" means Err
	Level  string    // "debug", "info" (or ""), "warn", "error"
	Err    io.Writer // where lines go without a Path; nil discards them

	// Batch is how long a line may wait for others to be written with it; 0
	// writes each line at once. If the process is killed, waiting lines are lost.
	Batch time.Duration
}

// Log owns the file that a logger writes to.
type Log struct {
	logger *zap.Logger
	level  zap.AtomicLevel
	out    *sink
	batch  *batch // nil when each line is written at once
}

// Open starts a log. An error names the file or the option.
func Open(o Options) (*Log, error) {
	level, err := parseLevel(o.Level)
	if err != nil {
		return nil, err
	}
	var stamps stamps
	encoder, err := newEncoder(o.Format, &stamps)
	if err != nil {
		return nil, err
	}
	out, err := openSink(o.Path, o.Err)
	if err != nil {
		return nil, err
	}
	l := &Log{level: zap.NewAtomicLevelAt(level), out: out}
	to := zapcore.WriteSyncer(out)
	if o.Batch > 0 {
		l.batch = newBatch(out, o.Batch, noticeOf(encoder.Clone()))
		to = l.batch
	}
	form := jsonForm
	if o.Format == formatConsole {
		form = consoleForm
	}
	core := newRecordCore(zapcore.NewCore(encoder, to, l.level), to, &stamps, form)
	// The sink counts its failures, so zap must not print them on stderr.
	l.logger = zap.New(core, zap.ErrorOutput(zapcore.AddSync(io.Discard)))
	return l, nil
}

// Logger returns the logger that writes to l. It stays valid after Reopen.
func (l *Log) Logger() *zap.Logger { return l.logger }

// SetLevel changes the level of a running log. The values are those of
// Options.Level.
func (l *Log) SetLevel(level string) error {
	parsed, err := parseLevel(level)
	if err == nil {
		l.level.SetLevel(parsed)
	}
	return err
}

// Reopen opens the file again, after logrotate, for instance, has renamed it.
// Earlier lines go to the old file, unless it is blocked. Lines that are being
// written go to one of the two; none is lost. After an error the old file stays
// in use. Without a file Reopen does nothing.
func (l *Log) Reopen() error {
	if l.batch != nil {
		l.batch.flush()
	}
	return l.out.reopen()
}

// errBlocked is returned while a write to the log does not end.
var errBlocked = errors.New("log: a write does not end; check whatever reads the log")

// noticeOf returns the function that makes the line after a write that was stuck.
func noticeOf(encoder zapcore.Encoder) func(dropped uint64) []byte {
	return func(dropped uint64) []byte {
		entry := zapcore.Entry{Level: zapcore.ErrorLevel, Time: time.Now(), Message: "log was blocked, lines were dropped; check whatever reads the log"}
		line, err := encoder.EncodeEntry(entry, []zapcore.Field{zap.Uint64("dropped", dropped)})
		if err != nil {
			return nil // the lines are counted anyway
		}
		defer line.Free()
		return bytes.Clone(line.Bytes())
	}
}

// Failures returns how many lines could not be written.
func (l *Log) Failures() uint64 { return l.out.failures.Load() }

// Blocked reports whether a write to the log does not end.
func (l *Log) Blocked() bool { return l.batch != nil && l.batch.blocked() }

// Close syncs and closes the file. Later lines are counted as failures. A blocked
// log is left open, because closing it might block too.
func (l *Log) Close() error {
	if l.batch != nil && !l.batch.close() {
		return errBlocked
	}
	return l.out.close()
}

// RedirectStdlog writes to this log, at level warn, what libraries print with the
// standard log package. The returned function undoes that.
func (l *Log) RedirectStdlog() (restore func()) {
	restore, err := zap.RedirectStdLogAt(l.logger.With(zap.String("from", "stdlog")), zapcore.WarnLevel)
	if err != nil {
		// The only possible error is a level that zap does not know.
		panic(err)
	}
	return restore
}

func parseLevel(level string) (zapcore.Level, error) {
	switch level {
	case "debug":
		return zapcore.DebugLevel, nil
	case "", "info":
		return zapcore.InfoLevel, nil
	case "warn":
		return zapcore.WarnLevel, nil
	case "error":
		return zapcore.ErrorLevel, nil
	default:
		return 0, fmt.Errorf("open log: %q is not a level: debug, info, warn or error", level)
	}
}

// The formats; "" means formatJSON.
const (
	formatJSON    = "json"
	formatConsole = "console"
)

func newEncoder(format string, stamps *stamps) (zapcore.Encoder, error) {
	c := zapcore.EncoderConfig{
		TimeKey:        "ts",
		LevelKey:       "level",
		MessageKey:     "msg",
		NameKey:        "logger",
		LineEnding:     zapcore.DefaultLineEnding,
		EncodeTime:     stamps.encode,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder,
	}
	switch format {
	case "", formatJSON:
		return zapcore.NewJSONEncoder(c), nil
	case formatConsole:
		return zapcore.NewConsoleEncoder(c), nil
	default:
		return nil, fmt.Errorf("open log: %q is not a format: json or console", format)
	}
}

// stamp is a second as text. It saves formatting, because most lines are written
// in the same second as the line before.
type stamp struct {
	second int64
	text   string
}

const stampLayout = "2006-01-02T15:04:05."

// stamps keeps the last stamp.
type stamps struct{ last atomic.Pointer[stamp] }

// append appends t as RFC 3339 in UTC, always with three digits of milliseconds,
// so that lines can be sorted.
func (c *stamps) append(b []byte, t time.Time) []byte {
	s := c.last.Load()
	if s == nil || s.second != t.Unix() {
		s = &stamp{t.Unix(), t.UTC().Format(stampLayout)}
		c.last.Store(s)
	}
	ms := t.Nanosecond() / int(time.Millisecond)
	b = append(b, s.text...)
	return append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

func (c *stamps) encode(t time.Time, e zapcore.PrimitiveArrayEncoder) {
	e.AppendByteString(c.append(make([]byte, 0, len(stampLayout)+len("000Z")), t))
}

// fileMode lets only the owner and the group (adm, for log rotation) read the
// file, because lines have addresses.
const fileMode = 0o640

func openFile(path string) (*os.File, error) {
	// Without O_NONBLOCK the open of a FIFO would wait for a reader.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, fileMode)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}
