package tables

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/freeport"
	"github.com/postern-mail/postern/internal/manual/manualtest"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

// A table is down once its server has failed several times, and up when it answers
// again. The log has one line for each change.
func TestTableUp(t *testing.T) {
	address, err := freeport.Addr() // nothing answers there
	if err != nil {
		t.Fatal(err)
	}
	core, logged := observer.New(zap.InfoLevel)
	now := time.Unix(1_800_000_000, 0)
	table, err := postmap.Open("unionmap:{inline:{a=b}, proxy:socketmap:inet:"+address+":owners}", postmap.Options{
		Remote: remote.Config{Now: func() time.Time { return now }}, State: State(zap.New(core)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = postmap.Close(table) }()
	c := NewCollector(func(visit func(postmap.Table)) {
		visit(table)
		visit(postmap.Table{Spec: "static:x"})
	})
	expect := func(value string) {
		t.Helper()
		want := "# HELP postern_table_up 1 while the servers of a table (mysql, pgsql, ldap, sqlite or socketmap) answer, 0 while its breaker is open.\n" +
			"# TYPE postern_table_up gauge\npostern_table_up{table=\"socketmap:inet:" + address + ":owners\"} " + value + "\n"
		if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	}
	expect("1")
	for range 3 {
		if _, err := table.Source.Lookup(t.Context(), "ann@x.example"); err == nil {
			t.Fatal("no server, and an answer")
		}
	}
	expect("0")
	server, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go manualtest.ServeTable(server)
	now = now.Add(time.Minute)
	if _, err := table.Source.Lookup(t.Context(), "ann@x.example"); err != nil {
		t.Fatal(err)
	}
	expect("1")
	var lines []string
	for _, entry := range logged.All() {
		lines = append(lines, entry.Message)
	}
	if strings.Join(lines, "\n") != "the servers of a table do not answer\nthe servers of a table answer again" {
		t.Errorf("%q", lines)
	}
}
