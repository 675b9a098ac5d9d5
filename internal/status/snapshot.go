package status

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
)

// snapshotAge is how long all requests share a snapshot.
const snapshotAge = time.Second

// Snapshot is the state of one daemon.
type Snapshot struct {
	Daemon     string      `json:"daemon"`
	Host       string      `json:"host"`
	Version    string      `json:"version"`
	Started    time.Time   `json:"started"`
	Now        time.Time   `json:"now"`
	Ready      bool        `json:"ready"`
	Conditions []Condition `json:"conditions"`
	Hour       Steps       `json:"hour"`
	Day        Steps       `json:"day"`
	Privacy    bool        `json:"privacy"`
	Error      string      `json:"error,omitempty"` // some metrics could not be read
	Numbers
	About
	Senders *api.DMARCSendersResult `json:"senders,omitempty"` // nil for a daemon that does not read reports
}

// Condition is one condition of readiness.
type Condition struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// snapshot returns the state of the daemon, at most one second old.
func (s *Server) snapshot(now time.Time) Snapshot {
	about, senders := s.about.get(s.life, now, s.askAbout), s.senders.get(s.life, now, s.askSenders)
	s.mu.Lock()
	defer s.mu.Unlock()
	if age := now.Sub(s.lastAt); age >= 0 && age < snapshotAge {
		s.last.About, s.last.Senders = about, senders
		return s.last
	}
	numbers, err := gather(s.o.Metrics)
	s.last = Snapshot{
		Daemon: s.o.Daemon, Host: s.o.Host, Version: s.o.Version, Started: s.o.Started, Now: now,
		Hour: s.chart.Hour(now), Day: s.chart.Day(now),
		Privacy: s.o.Privacy, Error: errorText(err), Numbers: numbers, About: about, Senders: senders,
	}
	ready, report := s.o.Ready()
	if s.o.Privacy {
		report = hideText(report)
	}
	s.last.Ready, s.last.Conditions = ready, conditions(report)
	s.lastAt = now
	return s.last
}

// conditions parses the report of readiness.
func conditions(report string) []Condition {
	all := []Condition{}
	for line := range strings.Lines(report) {
		name, state, _ := strings.Cut(strings.TrimSpace(line), ": ")
		word, detail, _ := strings.Cut(state, ": ")
		all = append(all, Condition{name, word == "ok", detail})
	}
	return all
}

// Part is the answer of a daemon: its state, and the requested records.
type Part struct {
	Status Snapshot `json:"status"`
	Log    Records  `json:"log"`
}

// status answers with the state of this daemon and its last records, for programs
// and for peers.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	want, err := parseWant(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, s.part(time.Now(), want))
}

func (s *Server) part(now time.Time, w want) Part {
	return Part{s.snapshotFor(now, w.privacy), s.records(w)}
}

// snapshotFor is snapshot, with addresses hidden if the client asks for that.
func (s *Server) snapshotFor(now time.Time, privacy bool) Snapshot {
	shot := s.snapshot(now)
	if privacy && !s.o.Privacy {
		hideAbout(&shot.About)
		shot.Conditions = slices.Clone(shot.Conditions)
		for i := range shot.Conditions {
			shot.Conditions[i].Detail = hideText(shot.Conditions[i].Detail)
		}
		shot.Senders = hideSenders(shot.Senders)
		shot.Privacy = true
	}
	return shot
}
