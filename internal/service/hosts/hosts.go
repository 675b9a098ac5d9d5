// Package hosts lets the hosts that share a Redis compare their settings. A daemon writes a
// record of itself there for each setting that names a Redis, such as greylist-store: its
// host, its release, and the settings that must be the same on all hosts (announce.go).
// postern doctor reads them (read.go). No host changes what it does because of a record.
//
// The records are one hash for each such setting, {postern}:hosts:SETTING, with a field for
// each daemon. So one command reads all of them, without a look at every key of the server,
// they are on one node of a Cluster, and there is a bound for their number. A field of a hash
// has no end of its own: each host that writes removes the records that are old.
package hosts

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// Every is the time between two records of a daemon.
	Every = time.Minute
	// Keep is how long a record counts. A host that is gone is forgotten after it.
	Keep = 10 * time.Minute
	// Most is the bound for the daemons at one hash. The record that is oldest goes.
	Most = 64
	// longest bounds a value, in octets: more than all settings of maxText.
	longest = 16 << 10
	// maxText bounds the text of a setting and the name of a host, in octets.
	maxText = 256
	// maxTime bounds times, in milliseconds since 1970: until 2248. The difference of two of
	// them is a time.Duration.
	maxTime = 1 << 43
)

// Host is what one daemon has written.
type Host struct {
	Name     string
	Release  string
	Settings map[string]string // texts for people
	// Successor means that the daemon has taken over from another one, which may still
	// have sessions.
	Successor bool

	// These are times of the server's clock, which all hosts share.
	Since, Seen time.Time // of the first and of the latest record
	Booted      time.Time // when the machine was started
	// Ahead is by how much the host's clock was ahead of the server's.
	Ahead time.Duration
}

// record is the form of a Host in Redis. Fields may be added: other releases ignore what
// they do not know, and compare what both have.
type record struct {
	Host      string            `json:"host"`
	Release   string            `json:"release"`
	Clock     int64             `json:"clock"` // of the host, milliseconds since 1970
	Up        int64             `json:"up"`    // milliseconds since the machine was started
	Successor bool              `json:"successor,omitempty"`
	Settings  map[string]string `json:"settings"`
}

// key returns the name of the hash, without the tag of the store.
func key(setting string) string { return "hosts:" + setting }

var errForm = errors.New("it is no record of a host")

// parse parses a value: since and seen, as the script has written them, and the record.
func parse(value string) (h Host, err error) {
	first, rest, _ := strings.Cut(value, " ")
	latest, text, _ := strings.Cut(rest, " ")
	since, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return h, errForm
	}
	seen, err := strconv.ParseInt(latest, 10, 64)
	if err != nil {
		return h, errForm
	}
	var r record
	if err := json.Unmarshal([]byte(text), &r); err != nil || !plain(r.Host) || !plain(r.Release) || r.Host == "" {
		return h, errForm
	}
	for _, t := range []int64{since, seen, r.Clock, r.Up} {
		if t < 0 || t > maxTime {
			return h, errForm
		}
	}
	for name, text := range r.Settings {
		if name == "" || !plain(name) || !plain(text) {
			return h, errForm
		}
	}
	h = Host{Name: r.Host, Release: r.Release, Settings: r.Settings, Successor: r.Successor, Since: time.UnixMilli(since), Seen: time.UnixMilli(seen)}
	h.Booted = time.UnixMilli(seen - r.Up)
	h.Ahead = time.Duration(r.Clock-seen) * time.Millisecond
	return h, nil
}

// plain reports whether a text can be printed in a line.
func plain(text string) bool {
	return len(text) <= maxText && utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}
