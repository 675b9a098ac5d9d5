package policyd

import (
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/manual/manualtest"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/policy"
)

// With every check at work and strangers who send what they like, metrics follow the
// conventions, and their number depends on the settings only.
func TestMetricsOfHostileRequests(t *testing.T) {
	zone := resolvertest.New(t, "2.0.0.127.zen.example. IN A 127.0.0.2\n2.2.0.192.zen.example. IN A 127.0.0.2\n")
	m := metrics.New(manualtest.Options(daemonName))
	c, r := newCurrent(), service.NewRuntime(zap.NewNop(), m)
	s, err := loadInto(c, r, []string{
		"--config=", "--checks=ownership,limit,dnsbl,greylist", "--owners=inline:{pr@x.example=ann}", "--owner-aliases=" + manualtest.Table(t), "--resolver=" + zone.Addr(),
		"--dnsbl=zen.example", "--limit=login=2/1h", "--limit=client=2/1h", "--limit-store=memory:", "--greylist-store=sqlite:" + filepath.Join(t.TempDir(), "greylist.db"), "--shadow=dnsbl",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
	defer c.Close()
	c.register(m)
	server := &policy.Server{Hooks: c, Report: policy.Reporter{Records: r.Records, Load: m}}
	peer, other := net.Pipe()
	defer func() { _, _ = peer.Close(), other.Close() }()
	send := func(round int) {
		for _, text := range manualtest.Hostile() {
			for _, login := range []string{"", text} {
				hostile := fmt.Sprint(text, round)
				request := fmt.Sprintf("request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=%[1]s\nclient_address=192.0.2.2\nclient_name=%[1]s\nhelo_name=%[1]s\nsender=%[1]s\nrecipient=%[1]s\nsasl_username=%[2]s\ninstance=%[1]s\nqueue_id=%[1]s\n", hostile, login)
				for _, end := range []string{"\n", "policy_context=" + text + "\n\n"} {
					server.ServeConn(&endlessConn{Conn: peer, left: 1, requests: [][]byte{[]byte(request + end)}}, nil)
				}
			}
		}
	}
	m.StoreClockSteps("greylist") // of a store in Redis
	m.StoreLosses("greylist")     // likewise
	send(0)
	before := manualtest.Exported(t, m)
	for round := range 20 {
		send(round + 1)
	}
	if after := manualtest.Exported(t, m); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	for _, of := range []map[string]string{
		{"store": "greylist", "outcome": "ok"}, {"store": "limit", "outcome": "ok"}, {"outcome": "absent"}, {"outcome": "answer"}, {"daemon": "policyd", "check": "greylist"}, {"daemon": "policyd", "check": "ownership"},
	} {
		if samples(t, m, of) == 0 {
			t.Errorf("no time was taken of %v", of)
		}
	}
}

// samples is how many times a histogram with these labels has.
func samples(t *testing.T, m *metrics.Metrics, labels map[string]string) (n uint64) {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.Metric {
			got := make(map[string]string)
			for _, label := range metric.Label {
				got[label.GetName()] = label.GetValue()
			}
			if metric.Histogram != nil && maps.Equal(got, labels) {
				n += metric.Histogram.GetSampleCount()
			}
		}
	}
	return n
}

// Every table with a server has a series while a state has it, however it is named.
func TestTablesHaveAMetric(t *testing.T) {
	m := metrics.New(manualtest.Options(daemonName))
	c, r := newCurrent(), service.NewRuntime(zap.NewNop(), m)
	defer c.Close()
	c.register(m)
	put := func(args ...string) {
		t.Helper()
		s, err := loadInto(c, r, append([]string{"--config=", "--checks=ownership,limit", "--limit-store=memory:", "--owners=inline:{pr@x.example=ann}"}, args...), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.apply(c)
	}
	put("--owners=proxy:socketmap:inet:127.0.0.1:7:owners", "--owner-aliases=socketmap:inet:127.0.0.1:7:aliases", "--limit-overrides=unionmap:{static:off,socketmap:inet:127.0.0.1:7:limits}")
	const help = "# HELP postern_table_up 1 while the servers of a table (mysql, pgsql, ldap, sqlite or socketmap) answer, 0 while its breaker is open.\n# TYPE postern_table_up gauge\n"
	want := help + `postern_table_up{table="socketmap:inet:127.0.0.1:7:aliases"} 1
postern_table_up{table="socketmap:inet:127.0.0.1:7:limits"} 1
postern_table_up{table="socketmap:inet:127.0.0.1:7:owners"} 1
`
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), "postern_table_up"); err != nil {
		t.Error(err)
	}
	put()
	if n, err := testutil.GatherAndCount(m.Gatherer(), "postern_table_up"); n != 0 || err != nil {
		t.Error("a reload took the tables away:", n, err)
	}
}
