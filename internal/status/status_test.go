package status

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/record"
)

// daemon is a page with its sinks.
type daemon struct {
	*Server
	sinks record.Sinks
	url   string
}

// start serves a page on loopback.
func start(t *testing.T, edit func(*Options)) *daemon {
	t.Helper()
	registry := prometheus.NewRegistry()
	decided := prometheus.NewCounterVec(prometheus.CounterOpts{Name: decisions}, []string{"check", "verdict", "reason", "mode"})
	wait := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "postern_wait_seconds", Buckets: []float64{1, 2}})
	up := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "postern_store_up"}, []string{"store"})
	registry.MustRegister(decided, wait, up)
	decided.WithLabelValues("dnsbl", "reject", "dnsbl_client_listed", "enforce").Add(7)
	for _, v := range []float64{.5, 1.5, 1.6, 9} {
		wait.Observe(v)
	}
	up.WithLabelValues("redis").Set(0)
	recent := logging.NewRecent()
	o := Options{
		Daemon: "policyd", Host: "mx.example.org", Version: "1.2.3", Started: time.Now(),
		Metrics: registry, Ready: func() (bool, string) { return false, "serving: ok\nstore: failing: no answer: really\n" },
		Records: recent, Run: "run-1",
		Commands: func() map[string]admin.Handler {
			return map[string]admin.Handler{
				api.Config: admin.Typed(func(context.Context, struct{}, func(any)) (any, error) {
					return api.ConfigResult{Settings: []api.Setting{{Name: "checks", Value: `["dnsbl"]`, Origin: "default"}, {Name: "alarm-mail", Value: `"ann@x.example"`, Origin: "--alarm-mail"}, {Name: "owner-exempt", Value: `["annette"]`, Origin: "--owner-exempt"}}}, nil
				}),
				api.LimitsList: admin.Typed(func(context.Context, api.LimitsListArgs, func(any)) (any, error) {
					return api.LimitsListResult{Uses: []api.LimitUse{{Value: "ann@x.example", Used: 5}}}, nil
				}),
				api.DKIMKeys: admin.Typed(func(context.Context, struct{}, func(any)) (any, error) { return nil, errors.New("not today") }),
			}
		},
		Log: log.New(io.Discard, "", 0),
	}
	if edit != nil {
		edit(&o)
	}
	page := New(o)
	page.about.wait = time.Minute // a busy machine may not answer in the time that a page has
	d := &daemon{Server: page, sinks: record.Sinks{recent, page}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.url = "http://" + ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- d.Serve(ln) }()
	t.Cleanup(func() {
		if err := errors.Join(d.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *daemon) record(sender string) {
	d.sinks.Record(&record.Record{Daemon: "policyd", Check: "dnsbl", Verdict: "reject", Reason: record.DNSBLClientListed, Sender: sender, ClientAddress: "192.0.2.7"}, time.Now())
}

func get(t *testing.T, address string) (status int, body string) {
	t.Helper()
	answer, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

func (d *daemon) part(t *testing.T, query string) Part {
	t.Helper()
	status, body := get(t, d.url+"/api/status?"+query)
	var p Part
	if err := json.Unmarshal([]byte(body), &p); err != nil || status != 200 {
		t.Fatalf("%d %v %s", status, err, body)
	}
	return p
}

func TestStatus(t *testing.T) {
	d := start(t, nil)
	d.record("ann@x.example")
	d.record("<b>bob</b>@y.example")
	p := d.part(t, "")
	s := p.Status
	if s.Version != "1.2.3" || s.Ready || len(s.Conditions) != 2 || s.Conditions[1] != (Condition{"store", false, "no answer: really"}) {
		t.Errorf("%+v", s)
	}
	if len(s.Settings) != 2 || s.Settings[0].Name != "alarm-mail" || s.Limits == nil || s.Trouble[api.DKIMKeys] != "not today" {
		t.Errorf("%+v", s.About)
	}
	if len(s.Decisions) != 1 || s.Decisions[0].Count != 7 {
		t.Errorf("%+v", s.Decisions)
	}
	if h := s.Histograms[0]; fmt.Sprint(h.Bounds, h.Counts, h.Count) != "[1 2] [1 2 1] 4" {
		t.Errorf("%+v", h)
	}
	if l := s.Lamps[0]; l.Good || l.Labels["store"] != "redis" {
		t.Errorf("%+v", l)
	}
	if n := s.Hour.Verdicts[len(s.Hour.Verdicts)-1]["reject"] + s.Hour.Verdicts[len(s.Hour.Verdicts)-2]["reject"]; n != 2 || s.Day.Reasons[0].Count != 2 {
		t.Errorf("%d in the chart, %+v", n, s.Day.Reasons)
	}
	if len(p.Log.Records) != 2 || !strings.Contains(string(p.Log.Records[1]), "<b>bob") && !strings.Contains(string(p.Log.Records[1]), `\u003cb\u003ebob`) {
		t.Errorf("%s", p.Log.Records)
	}
}

// The page gets a list of settings also while the daemon has not answered yet.
func TestStatusBeforeFirstAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{
			Metrics: prometheus.NewRegistry(), Ready: func() (bool, string) { return true, "" },
			Commands: func() map[string]admin.Handler {
				return map[string]admin.Handler{api.Config: func(ctx context.Context, _ json.RawMessage, _ func(any)) (any, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}}
			},
		})
		shot, err := json.Marshal(s.snapshot(time.Now()))
		if err != nil || !strings.Contains(string(shot), `"settings":[]`) {
			t.Errorf("%v %s", err, shot)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestFilter(t *testing.T) {
	d := start(t, nil)
	for i := range 300 {
		d.record(fmt.Sprintf("user%d@x.example", i))
	}
	for query, want := range map[string]int{
		"": maxRecords, "q=USER29": 11, "q=sender%3Duser299": 1, "q=recipient%3Duser299": 0, "q=user29+192.0.2.7": 11, "q=user29+nobody": 0,
		"verdict=reject&q=user7%40": 1, "verdict=pass": 0, "reason=dnsbl_client_listed&q=user1%40": 1, "check=greylist": 0,
		"run=run-1&after=298": 2, "run=old&after=298": maxRecords, "run=run-1&after=300": 0,
	} {
		if p := d.part(t, query); len(p.Log.Records) != want || p.Log.Next != 300 {
			t.Errorf("%s: %d records, next %d, want %d", query, len(p.Log.Records), p.Log.Next, want)
		}
	}
	for _, query := range []string{"after=x", "q=" + strings.Repeat("a", 300), "q=" + strings.Repeat("a+", 9)} {
		if status, _ := get(t, d.url+"/api/status?"+query); status != 400 {
			t.Errorf("%s: %d", query, status)
		}
	}
}

// With privacy no address is shown, and none can be guessed by a filter.
func TestPrivacy(t *testing.T) {
	for name, query := range map[string]string{"of the settings": "", "of a peer": "privacy=1&"} {
		t.Run(name, func(t *testing.T) {
			d := start(t, func(o *Options) {
				o.Privacy = query == ""
				o.Ready = func() (bool, string) { return false, "files: failing: ann@x.example and 192.0.2.7 are in no table\n" }
			})
			d.record("ann@x.example")
			_, body := get(t, d.url+"/api/status?"+query)
			if strings.Contains(body, "ann") || strings.Contains(body, "2.7") || !strings.Contains(body, "…@x.example") || !strings.Contains(body, "192.0.0.0/16") {
				t.Error(body)
			}
			if p := d.part(t, query+"q=ann"); len(p.Log.Records) != 0 {
				t.Errorf("%s", p.Log.Records)
			}
		})
	}
}

// events reads a page's events as they come.
type events struct {
	t  *testing.T
	in *bufio.Scanner
}

func open(t *testing.T, address string) events {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	if answer.StatusCode != 200 {
		t.Fatal(answer.Status)
	}
	in := bufio.NewScanner(answer.Body)
	in.Buffer(nil, 4<<20)
	return events{t, in}
}

func (e events) next(name string, v any) {
	e.t.Helper()
	at := ""
	for e.in.Scan() {
		if of, ok := strings.CutPrefix(e.in.Text(), "event: "); ok {
			at = of
		}
		if data, ok := strings.CutPrefix(e.in.Text(), "data: "); ok && at == name {
			if err := json.Unmarshal([]byte(data), v); err != nil {
				e.t.Fatal(err)
			}
			return
		}
	}
	e.t.Fatalf("no more events: %v", e.in.Err())
}

// A page gets each record once, also those of peers, and a message when a peer
// does not answer.
func TestEvents(t *testing.T) {
	peer := start(t, func(o *Options) { o.Daemon, o.Run = "milterd", "run-2" })
	peer.record("there@x.example")
	of := func(text string) Peer {
		p, err := ParsePeer(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	d := start(t, func(o *Options) { o.Peers = []Peer{of(peer.url), of("http://127.0.0.1:1")} })
	d.record("here@x.example")
	e := open(t, d.url+"/api/events")
	var h hello
	if e.next("hello", &h); len(h.Sources) != 3 || h.Reasons[record.Signed] == "" {
		t.Fatalf("%+v", h)
	}
	seen := map[int]string{}
	for len(seen) < 3 {
		var n news
		e.next("news", &n)
		switch {
		case n.Error != "":
			seen[n.Source] = n.Error
		case seen[n.Source] == "":
			seen[n.Source] = fmt.Sprintf("%s %s", n.Part.Status.Daemon, n.Part.Log.Records)
		}
	}
	if !strings.Contains(seen[0], "policyd [{") || !strings.Contains(seen[0], "here@") || !strings.Contains(seen[1], "milterd [{") || !strings.Contains(seen[1], "there@") || !strings.Contains(seen[2], "refused") {
		t.Errorf("%v", seen)
	}
	d.record("later@x.example")
	for {
		var n news
		if e.next("news", &n); n.Source == 0 && n.Part != nil && len(n.Part.Log.Records) > 0 {
			if len(n.Part.Log.Records) != 1 || !strings.Contains(string(n.Part.Log.Records[0]), "later@") {
				t.Errorf("%s", n.Part.Log.Records)
			}
			return
		}
	}
}

func TestPagesAreBounded(t *testing.T) {
	d := start(t, nil)
	for range maxPages {
		var h hello
		open(t, d.url+"/api/events").next("hello", &h)
	}
	if status, body := get(t, d.url+"/api/events"); status != 503 {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get(t, d.url+"/"); status != 200 {
		t.Errorf("the page: %d", status)
	}
}

// The page names no asset but its own, has nothing inline, and makes no markup.
func TestPageIsStrict(t *testing.T) {
	d := start(t, nil)
	for path, must := range map[string]string{"/": "status.js", "/status.js": "EventSource", "/status.css": "--ground", "/icon.svg": "<svg"} {
		status, body := get(t, d.url+path)
		if status != 200 || !strings.Contains(body, must) {
			t.Errorf("%s: %d", path, status)
		}
		body = strings.ReplaceAll(body, "http://www.w3.org/2000/svg", "")
		for _, not := range []string{"http:", "https:", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "<style", " style=", "onclick=", "document.cookie", "localStorage"} {
			if strings.Contains(body, not) {
				t.Errorf("%s has %s", path, not)
			}
		}
	}
	for _, path := range []string{"/page/", "/page/status.js", "/api", "/nothing"} {
		if status, _ := get(t, d.url+path); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func TestNoTokenOutsideLoopback(t *testing.T) {
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := New(Options{}).Serve(ln); !errors.Is(err, ErrNoToken) {
		t.Errorf("%v", err)
	}
}

// A daemon may end before the goroutine that serves its page has begun.
func TestServeAfterShutdown(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Options{})
	if err := errors.Join(s.Shutdown(context.Background()), s.Serve(ln)); err != nil {
		t.Error(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is left open: %v", err)
	}
}

func TestParsePeer(t *testing.T) {
	for text, want := range map[string]string{
		"http://192.0.2.7:9147": "http://192.0.2.7:9147", "https://mx.example.org/": "https://mx.example.org",
		"": "", "192.0.2.7:9147": "", "ftp://x": "", "http://": "", "http://u:p@x": "", "http://x/y": "", "http://x?y": "", "http://x#y": "",
	} {
		p, err := ParsePeer(text)
		if (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("%q: %v %v", text, p, err)
		}
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("the error has the password: %v", err)
		}
	}
}

// What another program answers is not taken for a status.
func TestPeerIsAnotherProgram(t *testing.T) {
	for _, answer := range []string{
		"{}", `{"status":"ok"}`, "[]", "hello", `{"status":{"daemon":"x"}}`,
		sparsePeer(`"records":["text"]`), sparsePeer(`"records":[null]`), sparsePeer(`"records":[` + strings.Repeat("{},", maxRecords) + "{}]"),
		strings.Replace(sparsePeer(`"run":"r"`), `"step_s":60`, `"step_s":0`, 1),
	} {
		if part, err := askAnswer(t, answer); err == nil {
			t.Errorf("%.200s: %+v", answer, part)
		}
	}
}

// sparsePeer is an answer that leaves out what it can.
func sparsePeer(log string) string {
	return `{"status":{"daemon":"milterd","hour":{"step_s":60,"verdicts":[` + strings.Repeat("null,", minutes-1) + `null]},"day":{"step_s":900,"verdicts":[` +
		strings.Repeat("null,", quarters-1) + `null]},"limits":{},"senders":{"domains":[{}]},"histograms":[{}]},"log":{` + log + `}}`
}

func askAnswer(t *testing.T, answer string) (Part, error) {
	t.Helper()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
	defer other.Close()
	p, err := ParsePeer(other.URL)
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Run: "run-1"}).askPeer(t.Context(), p, want{})
}

// The page shows a peer of another release, which leaves out what this one knows. A list
// that is null would stop the page for all daemons.
func TestPeerOfAnotherRelease(t *testing.T) {
	part, err := askAnswer(t, sparsePeer(`"run":"run-2"`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(part)
	if err != nil || strings.Contains(string(text), "null") {
		t.Errorf("%s %v", text, err)
	}
}

// A daemon that is its own peer would be counted twice.
func TestPeerIsItself(t *testing.T) {
	if _, err := askAnswer(t, sparsePeer(`"run":"run-1"`)); err == nil || !strings.Contains(err.Error(), "status-peers") {
		t.Error(err)
	}
}

// A peer gets the token, and it is not sent to another server.
func TestPeerIsNotFollowed(t *testing.T) {
	elsewhere := start(t, func(o *Options) { o.Token, o.Run = config.NewSecret(testToken), "run-2" })
	var got string
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		http.Redirect(w, r, elsewhere.url+"/api/status", http.StatusFound)
	})}
	go func() { _ = server.Serve(ln) }()
	defer server.Close()
	d := start(t, func(o *Options) { o.Token = config.NewSecret(testToken) })
	_, err = d.askPeer(t.Context(), Peer{&url.URL{Scheme: "http", Host: ln.Addr().String()}}, want{})
	if err == nil || !strings.Contains(err.Error(), "302") || got != "Bearer "+testToken {
		t.Errorf("%v, %q", err, got)
	}
	part, err := d.askPeer(t.Context(), Peer{&url.URL{Scheme: "http", Host: strings.TrimPrefix(elsewhere.url, "http://")}}, want{})
	if err != nil || part.Status.Daemon != "policyd" {
		t.Errorf("%v", err)
	}
}

func TestChart(t *testing.T) {
	c := newChart()
	now := time.Date(2026, 11, 26, 12, 0, 30, 0, time.UTC)
	add := func(verdict, mode string, ago time.Duration) {
		c.Record(&record.Record{Check: "dnsbl", Verdict: verdict, Reason: record.DNSBLClean, Mode: mode}, now.Add(-ago))
	}
	add("pass", "", 25*time.Hour)   // forgotten by the day too
	add("pass", "", 61*time.Minute) // by the hour
	add("pass", "", 59*time.Minute)
	add("pass", "enforce", time.Minute)
	add("reject", "shadow", time.Minute)
	add("pass", "", 0)
	hour, day := c.Hour(now), c.Day(now)
	n := len(hour.Verdicts)
	if n != minutes || hour.Verdicts[n-1]["pass"] != 1 || hour.Verdicts[n-2]["pass"] != 1 || hour.Verdicts[n-2][watched] != 1 || hour.Verdicts[0]["pass"] != 1 {
		t.Errorf("%v", hour)
	}
	sum := uint64(0)
	for _, c := range day.Reasons {
		sum += c.Count
	}
	if sum != 5 || !hour.End.Equal(now.Add(30*time.Second)) {
		t.Errorf("%d in the day, the hour ends at %v", sum, hour.End)
	}
	later := c.Hour(now.Add(2 * time.Hour))
	if len(later.Reasons) != 0 {
		t.Errorf("%v", later.Reasons)
	}
}

// After the clock was set back, decisions are counted at the new time at once.
func TestChartAfterTheClockWasSetBack(t *testing.T) {
	c := newChart()
	now := time.Date(2026, 11, 26, 12, 0, 30, 0, time.UTC)
	for _, back := range []time.Duration{0, 2 * time.Hour, 48 * time.Hour} {
		c.Record(&record.Record{Check: "dnsbl", Verdict: "pass"}, now.Add(-back))
		hour, day := c.Hour(now.Add(-back)), c.Day(now.Add(-back))
		if hour.Verdicts[minutes-1]["pass"] != 1 || day.Verdicts[quarters-1]["pass"] != 1 {
			t.Errorf("set back by %v: %v %v", back, hour.Verdicts, day.Verdicts)
		}
	}
}

func TestChartIsBounded(t *testing.T) {
	c := newChart()
	now := time.Now()
	for i := range 2 * maxKinds {
		c.Record(&record.Record{Check: fmt.Sprint(i), Verdict: "pass"}, now)
	}
	if got := c.Hour(now); len(got.Reasons) != maxKinds+1 || got.Verdicts[minutes-1]["pass"] != maxKinds {
		t.Errorf("%d kinds", len(got.Reasons))
	}
}

// The conditions that the page knows by name are metrics that there are.
func TestConditionsAreMetrics(t *testing.T) {
	manual, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range append(shouldBeZero(), zero{name: decisions}) {
		if !strings.Contains(string(manual), "| `"+z.name) {
			t.Errorf("deploy/README.md does not know %s", z.name)
		}
	}
}
