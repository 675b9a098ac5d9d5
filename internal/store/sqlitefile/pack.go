package sqlitefile

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"modernc.org/sqlite"
)

// packFunction is the name of the SQL function that packs all rows of a query into
// one value. The driver needs about 1 µs for each row that it returns by itself, and
// the half of that for a row that is packed.
const packFunction = "postern_pack"

// registerPack makes packFunction known to the connections that are opened after it.
var registerPack = sync.OnceValue(func() error {
	return sqlite.RegisterFunction(packFunction, &sqlite.FunctionImpl{
		NArgs:        -1,
		VolatileArgs: true, // they are copied
		MakeAggregate: func(sqlite.FunctionContext) (sqlite.AggregateFunction, error) {
			return packers.Get().(*packer), nil
		},
	})
})

// packers are used again, because a page is large.
var packers = sync.Pool{New: func() any { return new(packer) }}

// The kinds of a packed value.
const (
	packedInt  = 'i' // binary.AppendVarint
	packedText = 't' // the length by binary.AppendUvarint, and the octets
)

// packer implements sqlite.AggregateFunction.
type packer struct{ data []byte }

func (p *packer) Step(_ *sqlite.FunctionContext, row []driver.Value) error {
	for i, v := range row {
		switch v := v.(type) {
		case int64:
			p.data = binary.AppendVarint(append(p.data, packedInt), v)
		case string:
			p.data = append(p.textOf(len(v)), v...)
		case []byte:
			p.data = append(p.textOf(len(v)), v...)
		default:
			return fmt.Errorf("column %d is neither a number nor text", i+1)
		}
	}
	return nil
}

// textOf returns the data with the beginning of a text of a size.
func (p *packer) textOf(size int) []byte {
	return binary.AppendUvarint(append(p.data, packedText), uint64(size))
}

func (p *packer) WindowValue(*sqlite.FunctionContext) (driver.Value, error) { return p.data, nil }

func (p *packer) WindowInverse(*sqlite.FunctionContext, []driver.Value) error {
	return errors.New(packFunction + " is no window function")
}

// Final implements sqlite.AggregateFunction. By now the driver has copied the data.
func (p *packer) Final(*sqlite.FunctionContext) {
	p.data = p.data[:0]
	packers.Put(p)
}

// Packed is the rows of a query, with integers and texts only. Its values are read in
// their order. After an error all further values are zero.
type Packed struct {
	rest string
	err  error
}

// PreparePacked returns a statement for ReadPacked. It is closed with the file. from is
// what follows FROM in a query.
func (f *File) PreparePacked(ctx context.Context, columns, from string) (*sql.Stmt, error) {
	return f.Prepare(ctx, "SELECT "+packFunction+"("+columns+") FROM "+from)
}

// ReadPacked runs a statement of PreparePacked and returns its rows.
func ReadPacked(ctx context.Context, packed *sql.Stmt, args ...any) (*Packed, error) {
	p := new(Packed)
	err := packed.QueryRowContext(ctx, args...).Scan(&p.rest)
	return p, err
}

// More reports whether there is another value.
func (p *Packed) More() bool { return p.rest != "" }

// Err returns the first error.
func (p *Packed) Err() error { return p.err }

// Int returns the next value, which must be an integer.
func (p *Packed) Int() int64 {
	v := p.number(packedInt)
	return int64(v>>1) ^ -int64(v&1)
}

// Text returns the next value, which must be a text. All texts of a Packed share one
// piece of memory.
func (p *Packed) Text() string {
	size := p.number(packedText)
	if size > uint64(len(p.rest)) {
		p.fail()
		return ""
	}
	text := p.rest[:size]
	p.rest = p.rest[size:]
	return text
}

// number returns the number that follows the mark of a kind.
func (p *Packed) number(kind byte) uint64 {
	if p.rest == "" || p.rest[0] != kind {
		p.fail()
		return 0
	}
	v := uint64(0)
	for i, shift := 1, 0; i < len(p.rest) && i <= binary.MaxVarintLen64; i, shift = i+1, shift+7 {
		b := p.rest[i]
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			p.rest = p.rest[i+1:]
			return v
		}
	}
	p.fail()
	return 0
}

func (p *Packed) fail() { *p = Packed{err: errColumn} }

var errColumn = errors.New("a column has a value of the wrong type")
