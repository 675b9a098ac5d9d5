package hosts

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// FuzzParse parses what anyone who writes to the server may have left. All that is read can be
// printed in a line, and the record that it makes is read as the same.
func FuzzParse(f *testing.F) {
	f.Add(`1767323045000 1767323105000 {"host":"mx1","release":"1.0","clock":1767323105001,"up":3600000,"settings":{"greylist-delay":"3m"}}`)
	f.Add(`1 2 {"host":"mx1","successor":true,"more":[1]}`)
	f.Add("1 2 {\"host\":\"a\\u001b[2J\"}")
	f.Add("-9223372036854775808 9223372036854775807 {\"host\":\"x\",\"up\":-1,\"clock\":9223372036854775807}")
	f.Add("x y {}")
	f.Fuzz(func(t *testing.T, value string) {
		h, err := parse(value)
		if err != nil {
			return
		}
		texts := []string{h.Name, h.Release}
		for name, text := range h.Settings {
			texts = append(texts, name, text)
		}
		for _, text := range texts {
			if !plain(text) {
				t.Fatalf("%q of %q", text, value)
			}
		}
		r := record{Host: h.Name, Release: h.Release, Settings: h.Settings, Successor: h.Successor}
		r.Up = h.Seen.UnixMilli() - h.Booted.UnixMilli()
		r.Clock = h.Seen.UnixMilli() + int64(h.Ahead/time.Millisecond)
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(fmt.Sprintf("%d %d %s", h.Since.UnixMilli(), h.Seen.UnixMilli(), text))
		if err != nil || again.Name != h.Name || again.Release != h.Release || len(again.Settings) != len(h.Settings) ||
			!again.Since.Equal(h.Since) || !again.Seen.Equal(h.Seen) || !again.Booted.Equal(h.Booted) || again.Ahead != h.Ahead {
			t.Fatalf("%+v of %q is read as %+v, %v", h, value, again, err)
		}
	})
}
