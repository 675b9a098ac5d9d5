package logging

import (
	"sync"

	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
)

// appender is a record that can write its own JSON.
type appender interface {
	// AppendJSON appends the members of the object, without its braces and
	// behind a comma unless b ends in a brace, as zap would write them.
	AppendJSON(b []byte) []byte
}

// recordEncoder is zap's JSON encoder with a short way for lines that are one
// inlined record. Its clones, made for loggers with fields of their own, are
// zap's.
type recordEncoder struct {
	zapcore.Encoder
	stamps  *stamps
	lines   sync.Pool // of *[]byte
	buffers buffer.Pool
}

func newRecordEncoder(e zapcore.Encoder, stamps *stamps) *recordEncoder {
	return &recordEncoder{
		Encoder: e,
		stamps:  stamps,
		lines:   sync.Pool{New: func() any { return new([]byte) }},
		buffers: buffer.NewPool(),
	}
}

// EncodeEntry implements zapcore.Encoder.
func (e *recordEncoder) EncodeEntry(entry zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	if len(fields) != 1 || fields[0].Type != zapcore.InlineMarshalerType || entry.LoggerName != "" {
		return e.Encoder.EncodeEntry(entry, fields)
	}
	record, ok := fields[0].Interface.(appender)
	if !ok {
		return e.Encoder.EncodeEntry(entry, fields)
	}
	line := e.lines.Get().(*[]byte)
	b := append((*line)[:0], `{"level":"`...)
	b = append(b, entry.Level.String()...)
	b = append(b, `","ts":"`...)
	b = e.stamps.append(b, entry.Time)
	b = append(b, `","msg":"`...)
	b = append(b, entry.Message...) // the constant of package record
	b = append(b, '"')
	b = record.AppendJSON(b)
	b = append(b, '}', '\n')
	out := e.buffers.Get()
	_, _ = out.Write(b) // memory
	*line = b
	e.lines.Put(line)
	return out, nil
}
