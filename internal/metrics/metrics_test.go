package metrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/record"
)

func owned() Labels {
	return Labels{Check: "ownership", Verdict: "pass", Reason: record.OwnerOwned, Mode: "shadow"}
}

// start serves m on loopback and gives the base URL.
func start(t *testing.T, m *Metrics, r *Readiness) (url string, s *Server) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = NewServer(m, r, log.New(io.Discard, "", 0))
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String(), s
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	url, _ := start(t, m, new(Readiness))
	status, body := get(t, url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	return body
}

func TestMetrics(t *testing.T) {
	m := New(Options{Daemon: "policyd", Version: "v1.2.3", Revision: "abc", LogFailures: func() uint64 { return 7 }, LogBlocked: func() bool { return true }})
	m.Decided(owned(), 300*time.Microsecond)
	m.Decided(owned(), time.Minute)
	m.Decided(Labels{Verdict: "pass", Reason: record.NotApplicable}, 0)
	m.Prepare(owned(), Labels{Check: "dnsbl", Verdict: "reject", Reason: record.CheckFailed})
	m.PrepareErrors("dnsbl", record.DNSBLUnavailable)
	m.Record(&record.Record{Check: "greylist", Verdict: "pass", Reason: record.GreylistKnown, Steps: []record.Step{
		{Check: "limit", Verdict: "error", Reason: record.LimitUnavailable}, {Check: "greylist", Verdict: "pass", Reason: record.GreylistKnown},
	}}, time.Time{})
	m.RequestStarted()
	m.RequestStarted()
	m.RequestDone()
	m.ConnectionOpened()
	m.ConnectionOpened()
	m.ConnectionOpened()
	m.ConnectionClosed()
	m.Reloaded(time.UnixMilli(1700000000500), nil)
	m.Reloaded(time.UnixMilli(1800000000000), errors.New("broken"))
	m.Registerer().MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postern_breaker_open"}, func() float64 { return 1 }))
	body := scrape(t, m)
	for _, want := range []string{
		`postern_build_info{daemon="policyd",goversion="go1.`,
		`postern_decisions_total{check="ownership",mode="shadow",reason="owned",verdict="pass"} 2` + "\n",
		`postern_decisions_total{check="none",mode="enforce",reason="not_applicable",verdict="pass"} 1` + "\n",
		`postern_decisions_total{check="dnsbl",mode="enforce",reason="check_failed",verdict="reject"} 0` + "\n",
		`postern_decision_duration_seconds_bucket{check="ownership",daemon="policyd",le="0.00025"} 0` + "\n",
		`postern_decision_duration_seconds_bucket{check="none",daemon="policyd",le="0.00025"} 1` + "\n",
		`postern_decision_duration_seconds_bucket{check="ownership",daemon="policyd",le="0.0005"} 1` + "\n",
		`postern_decision_duration_seconds_bucket{check="ownership",daemon="policyd",le="30"} 1` + "\n",
		`postern_decision_duration_seconds_count{check="ownership",daemon="policyd"} 2` + "\n",
		`postern_decision_duration_seconds_count{check="none",daemon="policyd"} 1` + "\n",
		`postern_decision_duration_seconds_count{check="dnsbl",daemon="policyd"} 0` + "\n",
		`postern_check_errors_total{check="dnsbl",reason="dnsbl_unavailable"} 0` + "\n",
		`postern_check_errors_total{check="limit",reason="limits_unavailable"} 1` + "\n",
		`postern_decisions_total{check="greylist",mode="enforce",reason="greylist_known",verdict="pass"} 1` + "\n",
		"postern_requests_in_flight 1\n",
		"postern_connections 2\n",
		"postern_config_reload_failed 1\n",
		"postern_config_last_reload_timestamp_seconds 1.7000000005e+09\n",
		"postern_log_write_failures_total 7\n",
		"postern_log_blocked 1\n",
		"postern_breaker_open 1\n",
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q", want)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
	m.Reloaded(time.UnixMilli(1900000000000), nil)
	if body := scrape(t, m); !strings.Contains(body, "postern_config_reload_failed 0\n") {
		t.Error("a good reload leaves the gauge at 1")
	}
}

// The package comment lists exactly the metrics that exist, and each has a help
// text.
func TestEveryMetricIsDocumented(t *testing.T) {
	source := packageComment(t)
	none := func() uint64 { return 0 }
	body := scrape(t, New(Options{LogFailures: func() uint64 { return 0 }, LogBlocked: func() bool { return false }, ConnsClosed: none, ConnsRefused: none}))
	m := New(Options{})
	m.Decided(owned(), 0)
	m.PrepareErrors("dnsbl", record.DNSBLUnavailable)
	m.DNSQuestions("answer")
	m.StoreRequests("greylist")
	body += scrape(t, m)
	exported := make(map[string]bool)
	for _, match := range regexp.MustCompile(`(?m)^# HELP (postern_\w+) .`).FindAllStringSubmatch(body, -1) {
		exported[match[1]] = true
	}
	documented := make(map[string]bool)
	for _, match := range regexp.MustCompile(`(?m)^//\t(postern_\w+)`).FindAllStringSubmatch(source, -1) {
		documented[match[1]] = true
	}
	if len(exported) != 14 || fmt.Sprint(exported) != fmt.Sprint(documented) {
		t.Errorf("exported %v\ndocumented %v", exported, documented)
	}
}

func packageComment(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	comment, _, _ := strings.Cut(string(source), "\npackage metrics")
	return comment
}

// Labels that are not of the program do not end the daemon, and are bounded.
func TestHostileLabels(t *testing.T) {
	m := New(Options{})
	for _, text := range []string{"\xff", strings.Repeat("é", 4096), "a\x00b", `"}`} {
		m.Decided(Labels{Check: text, Verdict: text, Reason: record.Reason(text), Mode: text}, 0)
	}
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			for _, label := range s.Label {
				if len(label.GetValue()) > maxValue {
					t.Errorf("%s: a label of %d bytes", f.GetName(), len(label.GetValue()))
				}
			}
		}
	}
}

func TestDurations(t *testing.T) {
	m := New(Options{})
	asked := m.DNSQuestions("answer")
	asked("answer", time.Millisecond)
	asked("made up", time.Millisecond)
	store := m.StoreRequests("greylist")
	store(time.Millisecond, nil)
	store(time.Second, errors.New("gone"))
	body := scrape(t, m)
	for _, want := range []string{
		`postern_dns_question_duration_seconds_count{outcome="answer"} 1`, `postern_dns_question_duration_seconds_count{outcome="other"} 1`,
		`postern_store_request_duration_seconds_count{outcome="ok",store="greylist"} 1`, `postern_store_request_duration_seconds_sum{outcome="error",store="greylist"} 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
}

func TestSeriesAreBounded(t *testing.T) {
	m := New(Options{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range maxSeries {
				m.Decided(Labels{Check: fmt.Sprint(w, "-", i)}, 0)
			}
		})
	}
	wg.Wait()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "postern_decisions_total" {
			continue
		}
		var sum float64
		for _, s := range f.GetMetric() {
			sum += s.GetCounter().GetValue()
		}
		if len(f.GetMetric()) != maxSeries+1 || sum != 4*maxSeries {
			t.Errorf("%d series, %v decisions", len(f.GetMetric()), sum)
		}
		return
	}
	t.Error("no decisions")
}

func TestDecidedDoesNotAllocate(t *testing.T) {
	m := New(Options{})
	m.Prepare(owned())
	l := owned()
	if n := testing.AllocsPerRun(1000, func() {
		m.RequestStarted()
		m.Decided(l, time.Millisecond)
		m.RequestDone()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestReadiness(t *testing.T) {
	asked := 0
	steps := []struct {
		name  string
		do    func(r *Readiness)
		ready bool
		want  string
	}{
		{"at first", func(*Readiness) {}, false, "serving: failing\nnot draining: ok\n"},
		{"serving", (*Readiness).Serving, true, "serving: ok\nnot draining: ok\n"},
		{
			"store fails", func(r *Readiness) { r.Set("store", false, "dial\nrefused"); r.Set("owners", true, "") }, false,
			"serving: ok\nnot draining: ok\nowners: ok\nstore: failing: dial refused\n",
		},
		{"store recovers", func(r *Readiness) { r.Set("store", true, "redis") }, true, "serving: ok\nnot draining: ok\nowners: ok\nstore: ok: redis\n"},
		{
			"store is asked", func(r *Readiness) {
				r.Follow("store", func() (bool, string) { asked++; return asked > 2, fmt.Sprintf("try %d\nrefused", asked) })
			}, false,
			"serving: ok\nnot draining: ok\nowners: ok\nstore: failing: try 1 refused\n",
		},
		{"store is asked again", func(*Readiness) {}, false, "serving: ok\nnot draining: ok\nowners: ok\nstore: failing: try 2 refused\n"},
		{"store works, with a remark", func(*Readiness) {}, true, "serving: ok\nnot draining: ok\nowners: ok\nstore: ok: try 3 refused\n"},
		{"removed", func(r *Readiness) { r.Remove("store"); r.Remove("owners") }, true, "serving: ok\nnot draining: ok\n"},
		{"draining", (*Readiness).Draining, false, "serving: ok\nnot draining: failing\n"},
		{"no way back", (*Readiness).Serving, false, "serving: ok\nnot draining: failing\n"},
	}
	r := new(Readiness)
	url, _ := start(t, New(Options{}), r)
	for _, s := range steps {
		s.do(r)
		status, body := get(t, url+"/readyz")
		if (status == http.StatusOK) != s.ready || (status == http.StatusServiceUnavailable) == s.ready || body != s.want {
			t.Errorf("%s: %d %q", s.name, status, body)
		}
		if status, body := get(t, url+"/healthz"); status != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: healthz gives %d %q", s.name, status, body)
		}
	}
}

func TestConditionsAreBounded(t *testing.T) {
	r := new(Readiness)
	for i := range 2 * maxConditions {
		r.Set(fmt.Sprintf("%03d", i), true, strings.Repeat("ä", maxDetail))
	}
	r.Set("000", false, "known ones still change")
	_, report := r.Ready()
	if n := strings.Count(report, "\n"); n != maxConditions+2 || len(report) > n*(maxDetail+20) || !strings.Contains(report, "000: failing") {
		t.Errorf("%d lines, %d bytes", n, len(report))
	}
}

// unread is the answer to a client that does not read.
type unread struct {
	http.ResponseWriter
	writes  chan<- struct{}
	release <-chan struct{}
}

func (u unread) Write(text []byte) (int, error) {
	select {
	case u.writes <- struct{}{}:
	default: // it is known that this client's answer has begun
	}
	<-u.release
	return len(text), nil
}

// Clients that do not read keep no other client from the metrics.
func TestSlowReadersHoldNoScrape(t *testing.T) {
	s := NewServer(New(Options{}), new(Readiness), nil)
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	writes, release := make(chan struct{}, maxScrapes), make(chan struct{})
	var slow sync.WaitGroup
	for range maxScrapes {
		slow.Go(func() { s.http.Handler.ServeHTTP(unread{httptest.NewRecorder(), writes, release}, request) })
		<-writes
	}
	w := httptest.NewRecorder()
	if s.http.Handler.ServeHTTP(w, request); w.Code != http.StatusOK {
		t.Errorf("beside clients that do not read: %d %s", w.Code, w.Body)
	}
	close(release)
	slow.Wait()
}

func TestUnknownPathsAndMethods(t *testing.T) {
	url, _ := start(t, New(Options{}), new(Readiness))
	for path, want := range map[string]int{"/": 404, "/debug/pprof/": 404, "/metrics/x": 404} {
		if status, _ := get(t, url+path); status != want {
			t.Errorf("%s: %d", path, status)
		}
	}
	resp, err := http.Post(url+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", resp.StatusCode)
	}
}

func TestHeaderBound(t *testing.T) {
	url, _ := start(t, New(Options{}), new(Readiness))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Pad", strings.Repeat("x", 2*maxHeaderBytes))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestServeError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	err = NewServer(New(Options{}), new(Readiness), nil).Serve(ln)
	if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "serve metrics on 127.0.0.1:") {
		t.Errorf("got %v", err)
	}
}

// Shutdown waits for the answer in progress, but not beyond its context.
func TestShutdownEndsWithItsContext(t *testing.T) {
	m := New(Options{})
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m.Registerer().MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slow"}, func() float64 {
		once.Do(func() { close(entered) })
		<-release
		return 1
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(m, new(Readiness), nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
		t.Errorf("an answer after the cut: %q", line)
	}
}

func BenchmarkDecided(b *testing.B) {
	m := New(Options{})
	b.ReportAllocs()
	for b.Loop() {
		m.Decided(owned(), 300*time.Microsecond)
	}
}

func BenchmarkDecidedParallel(b *testing.B) {
	m := New(Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Decided(owned(), 300*time.Microsecond)
		}
	})
}

func BenchmarkRequestInFlight(b *testing.B) {
	m := New(Options{})
	b.ReportAllocs()
	for b.Loop() {
		m.RequestStarted()
		m.RequestDone()
	}
}
