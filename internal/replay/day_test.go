package replay

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// world answers DNS: good.example is authorised in 192.0.2.0/24, bad.example nowhere.
type world struct{}

var errNone = &net.DNSError{Err: "no such host", IsNotFound: true}

func (world) LookupTXT(_ context.Context, name string) ([]string, error) {
	switch strings.TrimSuffix(name, ".") {
	case "good.example":
		return []string{"v=spf1 ip4:192.0.2.0/24 -all"}, nil
	case "bad.example":
		return []string{"v=spf1 -all"}, nil
	case "pool.example":
		return []string{"v=spf1 ip4:203.0.0.0/14 -all"}, nil
	}
	return nil, errNone
}
func (world) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return nil, errNone }
func (world) LookupMX(context.Context, string) ([]*net.MX, error)               { return nil, errNone }
func (world) LookupAddr(context.Context, string) ([]string, error)              { return nil, errNone }

func newCheck() *checks.Greylist {
	return &checks.Greylist{
		Store: memstore.New(memstore.Options{}), Flood: greylist.NewFlood(0), Resolver: world{}, Delimiters: "+",
		Limits:    greylist.Limits{Delay: 3 * time.Minute, RetryWindow: 48 * time.Hour, PassTTL: 35 * 24 * time.Hour, AllowAfter: 3, AllowTTL: 35 * 24 * time.Hour},
		Keyer:     greylist.Keyer{Bits4: 24, Bits6: 64},
		Instances: new(checks.Instances), Header: true, Hostname: "mx.home.example",
	}
}

func withDelay(d time.Duration) *checks.Greylist {
	c := newCheck()
	c.Limits.Delay = d
	return c
}

// of makes settings of a check.
func of(check *checks.Greylist) Settings { return Settings{Greylist: check} }

// hooks is a daemon with one check.
type hooks struct{ chain policy.Chain }

func (h hooks) Hook(string, []string) (policy.Hook, error) {
	return policy.Hook{Chain: h.chain, Deadline: time.Second, Release: func() {}}, nil
}

type idleConn struct{ net.Conn }

func (idleConn) Idle() bool { return true }
func (idleConn) Busy() bool { return true }

type noLoad struct{}

func (noLoad) RequestStarted() {}
func (noLoad) RequestDone()    {}

// log keeps records as the lines of a log.
type log struct{ strings.Builder }

func (l *log) Record(r *record.Record, at time.Time) {
	l.WriteString(`{"level":"info","ts":"` + at.UTC().Format("2006-01-02T15:04:05.000Z") + `","msg":"decision"`)
	l.Write(r.AppendJSON([]byte(" ")))
	l.WriteString("}\n")
}

// mail is one that a client tries to deliver until it is taken or its tries are over.
type mail struct {
	client, name, sender, recipient, login string
	at                                     time.Duration
	tries                                  []time.Duration // after the first
}

// day is mixed traffic: servers that come back by different schedules, mail programs
// that never do, users who log in, regulars who write often, and a domain whose mail
// comes from several networks.
func day(seed uint64) (all []mail) {
	r := rand.New(rand.NewPCG(seed, 1))
	schedules := [][]time.Duration{
		nil,
		{5 * time.Minute, 15 * time.Minute, time.Hour},
		{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute},
		{100 * time.Second, 200 * time.Second, 400 * time.Second, 2 * time.Hour},
		{30 * time.Minute, 90 * time.Minute},
	}
	at := func() time.Duration { return time.Duration(r.IntN(int(24 * time.Hour))).Round(time.Microsecond) }
	for n := range 250 {
		m := mail{client: fmt.Sprintf("198.51.%d.%d", r.IntN(60), r.IntN(250)), sender: fmt.Sprintf("s%d@sender%d.example", n, r.IntN(80)), recipient: fmt.Sprintf("u%d@home.example", r.IntN(20)), at: at(), tries: schedules[r.IntN(len(schedules))]}
		switch n % 8 {
		case 0:
			m.client, m.sender = fmt.Sprintf("192.0.2.%d", r.IntN(250)), fmt.Sprintf("news%d@good.example", r.IntN(5))
		case 1:
			m.client, m.sender = fmt.Sprintf("203.0.%d.9", r.IntN(3)), fmt.Sprintf("p%d@pool.example", r.IntN(5))
			m.name = "mta1.pool.example"
		case 2:
			m.sender = "x@bad.example"
		case 3:
			m.login = "ann"
		case 4:
			m.client, m.sender = "198.51.7.7", fmt.Sprintf("regular%d@often.example", r.IntN(30))
		case 5:
			m.sender, m.recipient = "", "postmaster@home.example"
		}
		all = append(all, m)
	}
	return all
}

// spend has a daemon answer a day's mails from an hour after start on, and gives its
// log and how many mails came in.
func spend(t *testing.T, check *checks.Greylist, mails []mail, mode policy.Mode) (lines string, in, deferrals int) {
	t.Helper()
	return spendWith(t, policy.Chain{{Check: check, Mode: mode, ErrorReason: record.GreylistUnavailable}}, mails)
}

// spendWith is spend with any checks.
func spendWith(t *testing.T, chain policy.Chain, mails []mail) (lines string, in, deferrals int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var l log
		ours, theirs := net.Pipe()
		server := &policy.Server{Hooks: hooks{chain}, Report: policy.Reporter{Records: &l, Load: noLoad{}}}
		ended := make(chan struct{})
		go func() { server.ServeConn(idleConn{ours}, nil); close(ended) }()
		reader := bufio.NewReader(theirs)
		begun := time.Now()
		type try struct {
			mail  mail
			at    time.Duration
			again []time.Duration
		}
		var queue []try
		for _, m := range mails {
			queue = append(queue, try{m, m.at, m.tries})
		}
		byTime := func(a, b try) int { return int(a.at - b.at) }
		slices.SortStableFunc(queue, byTime)
		for len(queue) > 0 {
			next := queue[0]
			queue = queue[1:]
			time.Sleep(time.Until(begun.Add(next.at)))
			m := next.mail
			fmt.Fprintf(theirs, "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=%s\nclient_name=%s\nreverse_client_name=%s\nhelo_name=x\nsender=%s\nrecipient=%s\nsasl_username=%s\ninstance=%x\nclient_port=7\n\n", m.client, m.name, m.name, m.sender, m.recipient, m.login, int64(m.at))
			answer, err := reader.ReadString('\n')
			if err != nil {
				t.Error(err)
				break
			}
			if _, err := reader.ReadString('\n'); err != nil {
				t.Error(err)
			}
			switch {
			case !strings.Contains(answer, "DEFER"):
				in++
			case len(next.again) > 0:
				deferrals++
				again := try{m, m.at + next.again[0], next.again[1:]}
				place, _ := slices.BinarySearchFunc(queue, again, byTime)
				queue = slices.Insert(queue, place, again)
			default:
				deferrals++
			}
		}
		theirs.Close()
		<-ended
		lines = l.String()
	})
	return lines, in, deferrals
}

func play(t *testing.T, lines string, o Options) Report {
	t.Helper()
	if o.Show == 0 {
		o.Show = 10
	}
	p := New(o)
	for e, err := range maillog.Merge([]*maillog.Source{maillog.NewSource("test", strings.NewReader(lines), nil)}) {
		if err != nil {
			t.Fatal(err)
		}
		if q, ok := FromRecord(e); ok {
			if err := p.Play(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p.Report()
}

// With the settings of the day there is no difference, whatever the day, also when
// the log begins in its middle.
func TestUnchangedSettingsMakeNoDifference(t *testing.T) {
	for seed := range uint64(3) {
		lines, in, deferrals := spend(t, newCheck(), day(seed), policy.Enforce)
		all := strings.SplitAfter(lines, "\n")
		for _, from := range []int{0, len(all) / 3, len(all) / 2} {
			r := play(t, strings.Join(all[from:], ""), Options{Was: of(newCheck()), Would: of(newCheck())})
			if r.Differ != 0 || r.Misfits != 0 || len(r.Unknown) != 0 || r.Greylist.Was != r.Greylist.Would {
				t.Errorf("seed %d from %d: %d differences, %d misfits, unknown %v\nwas   %+v\nwould %+v\n%+v", seed, from, r.Differ, r.Misfits, r.Unknown, r.Greylist.Was, r.Greylist.Would, r.Differences)
			}
			if from == 0 && (r.Before != 0 || r.Greylist.Was.Deferred != deferrals || r.Greylist.Was.AtLeast != 0) {
				t.Errorf("seed %d: known before: %d; %d deferrals, want %d (%d mails came in)", seed, r.Before, r.Greylist.Was.Deferred, deferrals, in)
			}
			if from > 0 && r.Before == 0 {
				t.Errorf("seed %d from %d: nothing was known before", seed, from)
			}
		}
	}
}

// What replay says of a shorter delay is what the daemon does with it: clients come
// back by their schedules whatever they are told.
func TestAShorterDelayIsExact(t *testing.T) {
	for seed := range uint64(2) {
		long, _, _ := spend(t, newCheck(), day(seed), policy.Enforce)
		for _, delay := range []time.Duration{time.Second, 2 * time.Minute} {
			short, _, deferrals := spend(t, withDelay(delay), day(seed), policy.Enforce)
			want := play(t, short, Options{Was: of(withDelay(delay)), Would: of(withDelay(delay))}).Greylist.Was
			r := play(t, long, Options{Was: of(newCheck()), Would: of(withDelay(delay))})
			if got := r.Greylist.Would; got != want || got.Deferred != deferrals {
				t.Errorf("seed %d, delay %v:\ngot  %+v\nwant %+v", seed, delay, got, want)
			}
			if r.Differ == 0 || r.Misfits != 0 {
				t.Errorf("seed %d, delay %v: %d differences, %d misfits", seed, delay, r.Differ, r.Misfits)
			}
		}
	}
}

// Of a longer delay the waits are lower bounds, and say so.
func TestALongerDelayIsALowerBound(t *testing.T) {
	lines, _, _ := spend(t, newCheck(), day(1), policy.Enforce)
	r := play(t, lines, Options{Was: of(newCheck()), Would: of(withDelay(20 * time.Minute))})
	was, would := r.Greylist.Was, r.Greylist.Would
	if would.AtLeast == 0 || would.Waits.Median < was.Waits.Median || would.Waits.Max < (20*time.Minute).Seconds() || would.Deferred <= was.Deferred {
		t.Errorf("was   %+v\nwould %+v", was, would)
	}
	for _, d := range r.Differences {
		if d.Would != string(record.GreylistEarly) && d.Would != string(record.GreylistNew) || d.Wait <= 0 {
			t.Errorf("%+v", d)
		}
	}
}
