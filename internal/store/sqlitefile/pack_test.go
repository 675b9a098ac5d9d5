package sqlitefile

import (
	"database/sql/driver"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPack reads rows of every kind of value through SQLite.
func TestPack(t *testing.T) {
	schema := Schema{Name: "test", ID: 1, Version: 1, Create: "CREATE TABLE IF NOT EXISTS t (n INTEGER, s TEXT);"}
	f, err := openFile(t.Context(), schema, filepath.Join(t.TempDir(), "pack.db"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	all, err := f.PreparePacked(t.Context(), "n, s", "t WHERE n <> ?")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := ReadPacked(t.Context(), all, 5); err != nil || p.More() || p.Err() != nil {
		t.Errorf("no row: %+v, %v", p, err)
	}
	numbers := []int64{0, 1, -1, 63, -64, 64, math.MaxInt64, math.MinInt64}
	texts := []string{"", "a", "a b\x00c", strings.Repeat("x", 200_000), "\xff", "i", "t", "ü"}
	for i := range numbers {
		if _, err := f.Writer.ExecContext(t.Context(), "INSERT INTO t VALUES (?, ?)", numbers[i], texts[i]); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the memory of the texts is not used again
		p, err := ReadPacked(t.Context(), all, 5)
		if err != nil {
			t.Fatal(err)
		}
		var gotNumbers []int64
		var gotTexts []string
		for p.More() {
			gotNumbers, gotTexts = append(gotNumbers, p.Int()), append(gotTexts, p.Text())
		}
		if p.Err() != nil || !slices.Equal(gotNumbers, numbers) || !slices.Equal(gotTexts, texts) {
			t.Errorf("got %v, %.100q, %v", gotNumbers, gotTexts, p.Err())
		}
	}
	if _, err := f.Writer.ExecContext(t.Context(), "INSERT INTO t VALUES (7, NULL)"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPacked(t.Context(), all, 5); err == nil || !strings.Contains(err.Error(), "column 2 is neither a number nor text") {
		t.Errorf("NULL: %v", err)
	}
}

// TestPackedOfAnotherType reads values as what they are not.
func TestPackedOfAnotherType(t *testing.T) {
	for name, read := range map[string]func(*Packed){
		"a text as a number": func(p *Packed) { p.Int() },
		"a number as a text": func(p *Packed) { p.Text(); p.Text() },
		"beyond the end":     func(p *Packed) { p.Text(); p.Int(); p.Int() },
	} {
		p := &Packed{rest: string(pack(t, "text", int64(7)))}
		if read(p); p.Err() == nil || p.More() || p.Int() != 0 || p.Text() != "" {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func pack(t testing.TB, row ...driver.Value) []byte {
	var p packer
	if err := p.Step(nil, row); err != nil {
		t.Fatal(err)
	}
	return p.data
}

// FuzzPacked reads any octets: they are read to the end, or there is an error.
func FuzzPacked(f *testing.F) {
	f.Add(string(pack(f, "text", int64(-7), []byte{0}, int64(1)<<40)))
	f.Add("t\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x")
	f.Add("i\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")
	f.Fuzz(func(t *testing.T, data string) {
		p := &Packed{rest: data}
		var row []driver.Value
		for p.More() {
			if p.rest[0] == packedText {
				row = append(row, p.Text())
			} else {
				row = append(row, p.Int())
			}
		}
		if p.Err() != nil {
			return
		}
		again := &Packed{rest: string(pack(t, row...))}
		for i, want := range row {
			var got driver.Value
			if _, ok := want.(string); ok {
				got = again.Text()
			} else {
				got = again.Int()
			}
			if got != want {
				t.Errorf("value %d: %v, want %v", i, got, want)
			}
		}
	})
}
