package memstore

import (
	"encoding/binary"
	"errors"

	"github.com/postern-mail/postern/internal/limit"
)

// Encoder writes a list of things that have IDs and times, for a file. Most IDs and times
// are like those before them, and are then short:
//
//   - the rule of an ID is 0 and a text, or else the number of an earlier one, from 1;
//   - the value of an ID is a text, which is empty if it is that of the ID before. A value
//     is never empty;
//   - a time is the difference to the time before.
//
// A text is its length and its octets.
type Encoder struct {
	B []byte

	rules map[string]uint64
	value string
	time  limit.Millis
}

// Uvarint writes a number.
func (e *Encoder) Uvarint(n uint64) { e.B = binary.AppendUvarint(e.B, n) }

// Varint writes a number that may be negative.
func (e *Encoder) Varint(n int64) { e.B = binary.AppendVarint(e.B, n) }

// Text writes a text.
func (e *Encoder) Text(text string) {
	e.B = append(binary.AppendUvarint(e.B, uint64(len(text))), text...)
}

// Data writes octets.
func (e *Encoder) Data(b []byte) { e.B = append(binary.AppendUvarint(e.B, uint64(len(b))), b...) }

// Time writes a time.
func (e *Encoder) Time(at limit.Millis) {
	e.Varint(at - e.time)
	e.time = at
}

// ID writes the ID of a counter.
func (e *Encoder) ID(id limit.ID) {
	rule := e.rules[id.Rule]
	e.Uvarint(rule)
	if rule == 0 {
		if e.rules == nil {
			e.rules = make(map[string]uint64)
		}
		e.rules[id.Rule] = uint64(len(e.rules) + 1)
		e.Text(id.Rule)
	}
	if id.Value == e.value {
		e.Text("")
		return
	}
	e.Text(id.Value)
	e.value = id.Value
}

// Decoder reads what an Encoder has written. After an error it returns zero values.
type Decoder struct {
	B   []byte
	Err error

	rules []string
	value string
	time  limit.Millis
}

var errCode = errors.New("a row in the file cannot be read")

// Uvarint reads a number.
func (d *Decoder) Uvarint() uint64 {
	n, size := binary.Uvarint(d.B)
	return cut(d, n, size)
}

// Varint reads a number that may be negative.
func (d *Decoder) Varint() int64 {
	n, size := binary.Varint(d.B)
	return cut(d, n, size)
}

func cut[N int64 | uint64](d *Decoder, n N, size int) N {
	if size <= 0 || d.Err != nil {
		d.Err = errCode
		return 0
	}
	d.B = d.B[size:]
	return n
}

// Octets reads n octets. They are a part of B.
func (d *Decoder) Octets(n uint64) []byte {
	if n > uint64(len(d.B)) || d.Err != nil {
		d.Err = errCode
		return nil
	}
	b := d.B[:n]
	d.B = d.B[n:]
	return b
}

// Data reads octets. They are a copy, which is not nil.
func (d *Decoder) Data() []byte { return append([]byte{}, d.Octets(d.Uvarint())...) }

// Text reads a text.
func (d *Decoder) Text() string { return string(d.Octets(d.Uvarint())) }

// Time reads a time.
func (d *Decoder) Time() limit.Millis {
	d.time += d.Varint()
	return d.time
}

// ID reads the ID of a counter.
func (d *Decoder) ID() limit.ID {
	rule := d.Uvarint()
	if rule == 0 {
		d.rules = append(d.rules, d.Text())
		rule = uint64(len(d.rules))
	}
	if value := d.Text(); value != "" {
		d.value = value
	}
	if rule > uint64(len(d.rules)) || d.Err != nil {
		d.Err = errCode
		return limit.ID{}
	}
	return limit.ID{Rule: d.rules[rule-1], Value: d.value}
}
