// Package manualtest compares the documents with values that only a daemon's own tests
// can see.
package manualtest

import (
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/manual"
	"github.com/postern-mail/postern/internal/metrics"
)

// Table serves a table without entries and returns its name.
func Table(t *testing.T) string {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go ServeTable(server)
	return "socketmap:inet:" + server.Addr().String() + ":none"
}

// ServeTable serves a table without entries until server is closed.
func ServeTable(server net.Listener) {
	for {
		client, err := server.Accept()
		if err != nil {
			return
		}
		go answer(client)
	}
}

// answer answers each request of socketmap_table(5) that a key is not listed.
func answer(client net.Conn) {
	defer func() { _ = client.Close() }()
	request := make([]byte, 64<<10)
	for {
		if _, err := client.Read(request); err != nil {
			return
		}
		if _, err := client.Write([]byte("9:NOTFOUND ,")); err != nil {
			return
		}
	}
}

// Options returns options with which a daemon has every metric.
func Options(daemon string) metrics.Options {
	none := func() uint64 { return 0 }
	return metrics.Options{
		Daemon: daemon, Version: "1.0.0", Revision: "0123456789ab",
		LogFailures: none, LogBlocked: func() bool { return false },
		ConnsClosed: none, ConnsRefused: none,
	}
}

// Metrics fails the test unless deploy/README.md lists exactly the metrics of a daemon
// that are registered with m. The test must run in a folder of internal.
func Metrics(t *testing.T, daemon string, m *metrics.Metrics) {
	t.Helper()
	documented, err := manual.Metrics("../..", daemon)
	if err != nil {
		t.Fatal(err)
	}
	registered := names(m)
	for _, name := range registered {
		if !slices.Contains(documented, name) {
			t.Errorf("metric %s is not in deploy/README.md (as one of %s)", name, daemon)
		}
	}
	for _, name := range documented {
		if !slices.Contains(registered, name) {
			t.Errorf("deploy/README.md lists metric %s, which %s does not have", name, daemon)
		}
	}
}

var fullName = regexp.MustCompile(`fqName: "([^"]*)"`)

// names returns the names of Postern's own metrics in m.
func names(m *metrics.Metrics) []string {
	described := make(chan *prometheus.Desc)
	go func() {
		defer close(described)
		m.Registerer().(prometheus.Collector).Describe(described)
	}()
	var all []string
	for d := range described {
		if match := fullName.FindStringSubmatch(d.String()); match != nil && strings.HasPrefix(match[1], "postern_") {
			all = append(all, match[1])
		}
	}
	return all
}
