package record

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// fill sets every text of a struct to one of its own.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString(fmt.Sprintf("%s of %s\x00", v.Type().Field(i).Name, v.Type()))
		}
	}
}

// Every field is read back. A new field must be added to values.
func TestCompact(t *testing.T) {
	var full Record
	fill(reflect.ValueOf(&full).Elem())
	full.Duration, full.Err = -time.Millisecond, errors.New("")
	full.Steps = make([]Step, 2)
	for i := range full.Steps {
		fill(reflect.ValueOf(&full.Steps[i]).Elem())
	}
	full.Steps[1].Err = errors.New("gone")
	for name, want := range map[string]*Record{"full": &full, "empty": {}} {
		b := want.AppendCompact([]byte("before"))
		if got := ParseCompact(b[len("before"):]); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got  %+v\nwant %+v", name, got, want)
		}
	}
}

// A form that is cut off anywhere is read without a panic.
func TestCompactCut(t *testing.T) {
	r := &Record{Daemon: "policyd", Sender: "a@b.example", Err: errors.New("gone"), Steps: []Step{{Check: "dnsbl"}, {Check: "greylist"}}}
	whole := r.AppendCompact(nil)
	for n := range whole {
		if got := ParseCompact(whole[:n]); len(got.Steps) > 2 {
			t.Errorf("cut to %d: %+v", n, got)
		}
	}
	ParseCompact([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
}
