package record

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// filled is a record with a value of s in every text.
func filled(s string) *Record {
	r := &Record{
		Duration: 1234567 * time.Nanosecond,
		Err:      errors.New("error " + s),
		Steps: []Step{
			{Check: "a" + s, Verdict: "pass", Reason: Reason(s), Mode: s, Detail: s, Err: errors.New(s)},
			{Check: "b"},
		},
	}
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString(v.Type().Field(i).Name + s)
		}
	}
	return r
}

func throughZap(t *testing.T, r *Record) string {
	t.Helper()
	buf, err := zapcore.NewJSONEncoder(zapcore.EncoderConfig{SkipLineEnding: true}).EncodeEntry(zapcore.Entry{}, []zap.Field{zap.Inline(r)})
	if err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// odd are texts that JSON has to escape.
var odd = []string{
	"", "plain", `quote " and \\ backslash`, "a\nb\r\tc", "\x00\x01\x1f\x7f", "jürgen@bücher.example", "\xff\xfe", "a\xc3", "\u2028\ufeff\ufffd", "<>&", strings.Repeat("x\"", 500),
}

func TestAppendJSONIsWhatZapWrites(t *testing.T) {
	for _, s := range odd {
		for _, r := range []*Record{filled(s), {Check: s}, {Steps: []Step{{Detail: s}, {}}}} {
			got := "{" + string(r.AppendJSON(nil)) + "}"
			if want := throughZap(t, r); got != want {
				t.Errorf("%q:\n got %s\nwant %s", s, got, want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("%q: not JSON: %s", s, got)
			}
		}
	}
}

func FuzzAppendJSON(f *testing.F) {
	for _, s := range odd {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := &Record{Sender: s, Steps: []Step{{Detail: s}}}
		if got, want := "{"+string(r.AppendJSON(nil))+"}", throughZap(t, r); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// The keys are a contract with operators: deploy/README.md and alerts name them.
func TestKeys(t *testing.T) {
	var got map[string]any
	if err := json.Unmarshal([]byte("{"+string(filled("x").AppendJSON(nil))+"}"), &got); err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`daemon check verdict reason action mode peer instance queue_id client_address client_port client_name helo
		sender recipient sasl_username message_id whose from spf dkim arc dmarc disposition signed_by duration_ms steps error`)
	if len(got) != len(want) {
		t.Errorf("%d keys, want %d", len(got), len(want))
	}
	for _, key := range want {
		if _, ok := got[key]; !ok {
			t.Errorf("no key %s", key)
		}
	}
	step := got["steps"].([]any)[0].(map[string]any)
	for _, key := range strings.Fields("check verdict reason mode detail error") {
		if _, ok := step[key]; !ok {
			t.Errorf("no key %s in steps", key)
		}
	}
	if got["duration_ms"] != 1.234 {
		t.Errorf("duration_ms %v", got["duration_ms"])
	}
}

func TestLevel(t *testing.T) {
	for _, r := range []*Record{{}, {Err: errors.New("x")}} {
		var level zapcore.Level
		l := zap.New(zapcore.NewNopCore(), zap.Hooks())
		l = l.WithOptions(zap.WrapCore(func(zapcore.Core) zapcore.Core { return levelCore{&level} }))
		r.Log(l)
		if (level == zapcore.WarnLevel) != (r.Err != nil) {
			t.Errorf("level %s with error %v", level, r.Err)
		}
	}
}

// levelCore notes the level of what is logged.
type levelCore struct{ level *zapcore.Level }

func (levelCore) Enabled(zapcore.Level) bool                 { return true }
func (c levelCore) With([]zapcore.Field) zapcore.Core        { return c }
func (levelCore) Write(zapcore.Entry, []zapcore.Field) error { return nil }
func (levelCore) Sync() error                                { return nil }
func (c levelCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	*c.level = e.Level
	return ce
}

func BenchmarkAppendJSON(b *testing.B) {
	r := filled(" some value")
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendJSON(buf[:0])
	}
}
