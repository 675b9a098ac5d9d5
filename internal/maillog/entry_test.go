package maillog

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

const line = `{"level":"info","ts":"2026-11-21T02:00:00.007Z","msg":"decision","daemon":"policyd","check":"greylist","verdict":"defer","reason":"greylist_new","sender":"ann@x.example","duration_ms":1.5,"steps":[{"check":"greylist","verdict":"defer","detail":"key=192.0.2.0/24"}]}`

func quoted(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParse(t *testing.T) {
	for name, text := range map[string]string{
		"as it is":                line,
		"with blanks":             strings.ReplaceAll(line, `":`, `": `) + " \r\n",
		"behind syslog's stamp":   "Nov 21 02:00:00 mx postern-policyd[4711]: " + line,
		"behind a container":      "policyd-1  | " + line,
		"in the journal's JSON":   `{"MESSAGE":` + quoted(t, line) + `,"_PID":"1"}`,
		"in a container's file":   `{"log":` + quoted(t, line+"\n") + `,"stream":"stderr"}`,
		"in a log shipper's":      `{"host":"a","message":` + quoted(t, line) + `}`,
		"behind a stamp, in JSON": `2026-11-21 {"message":` + quoted(t, line) + `}`,
	} {
		e := Parse([]byte(text))
		if e == nil {
			t.Errorf("%s: no record", name)
			continue
		}
		if e.Daemon != "policyd" || e.Reason != "greylist_new" || !e.Time.Equal(time.Date(2026, 11, 21, 2, 0, 0, 7e6, time.UTC)) || e.Step("greylist").Detail != "key=192.0.2.0/24" {
			t.Errorf("%s: %+v", name, e)
		}
		if got := e.Received(); !got.Equal(e.Time.Add(-1500 * time.Microsecond)) {
			t.Errorf("%s: received %v", name, got)
		}
		if !json.Valid(e.Line) || !strings.HasPrefix(string(e.Line), "{") {
			t.Errorf("%s: line %q", name, e.Line)
		}
	}
	for _, text := range []string{
		"", "{", "decision", `{"msg":"decision"}`, `{"msg":"started","daemon":"policyd","why":"decision"}`,
		`{"MESSAGE":"decision"}`, `{"MESSAGE":{"msg":"decision"}}`, line[:len(line)-1], `{"msg":"decision","daemon":"policyd","ts":7}`,
	} {
		if e := Parse([]byte(text)); e != nil {
			t.Errorf("%q: %+v", text, e)
		}
	}
}

// Every key of a record is read.
func TestEveryKeyIsRead(t *testing.T) {
	fill := func(v reflect.Value) {
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.String {
				f.SetString("x")
			}
		}
	}
	full := record.Record{Steps: make([]record.Step, 1), Err: errText("x"), Duration: time.Second}
	full.Steps[0].Err = errText("x")
	fill(reflect.ValueOf(&full).Elem())
	fill(reflect.ValueOf(&full.Steps[0]).Elem())
	e := Parse([]byte(`{"level":"warn","ts":"2026-11-21T02:00:00.007Z","msg":"decision"` + string(full.AppendJSON([]byte(" "))) + "}"))
	if e == nil {
		t.Fatal("not read")
	}
	for _, v := range []reflect.Value{reflect.ValueOf(*e), reflect.ValueOf(e.Steps[0])} {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%s is empty", v.Type().Field(i).Name)
			}
		}
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(e.Line, &keys); err != nil || len(keys) != reflect.TypeFor[Entry]().NumField()-1 {
		t.Errorf("%d keys in %s, %v", len(keys), e.Line, err)
	}
}

type errText string

func (e errText) Error() string { return string(e) }

func FuzzParse(f *testing.F) {
	f.Add([]byte(line))
	f.Add([]byte(`{"log":"{\"msg\":\"decision\"}\n"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := Parse(b)
		if e == nil {
			return
		}
		if !json.Valid(e.Line) || e.Message != record.Message {
			t.Errorf("%q: %+v", b, e)
		}
		m := NewJoiner().Add(e)
		c := NewCounter()
		c.Add(m)
		c.Summary(10)
	})
}
