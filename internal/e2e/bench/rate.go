package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	gomilter "github.com/emersion/go-milter"

	"github.com/postern-mail/postern/internal/e2e"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	rateMails    = 1_500 // a round and side
	rateWarm     = 300   // likewise, before the rounds
	rateSessions = 16
	rateClients  = 16 // addresses that they seem to come from
	rateSender   = "a@" + dmarcDomain
	rateHelo     = "mx." + dmarcDomain
	rateTo       = "b@home.example"
	rateLimit    = 2 * time.Minute // for one round and side

	idleMilterArg = "-idle-milter"
	dunnoArg      = "-dunno"
)

// The two services of the Postfix.
const (
	bareService    = "bare"
	guardedService = "guarded"
)

// rateZone holds the DNS records of the clients and of the lists; %s is the key.
const rateZone = `signed.example. 3600 TXT "v=spf1 ip4:192.0.2.0/24 -all"
_dmarc.signed.example. 3600 TXT "v=DMARC1; p=reject"
s1._domainkey.signed.example. 3600 TXT %s
*.2.0.192.in-addr.arpa. 3600 PTR mx.signed.example.
`

// benchRate measures how many mails a second pass a Postfix with two services. One asks
// a milter and a policy server that do nothing, the other asks Postern. A mail counts
// when it leaves Postfix.
func benchRate(ctx context.Context, e *env) ([]result, error) {
	s, err := startRate(ctx, e)
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	results, err := s.measure(ctx)
	return results, errors.Join(err, s.stop())
}

// rateSite holds everything that runs for benchRate.
type rateSite struct {
	postfix *postfixtest.Postfix
	relays  map[string]*proxyRelay
	guards  map[string][]int // processes that a service asks
	mail    string           // path of the message
	records string           // what postern-milterd writes
	greeted string           // what postern-policyd writes
	ends    []func() error
}

func (s *rateSite) stop() error {
	var errs []error
	for i := len(s.ends) - 1; i >= 0; i-- {
		errs = append(errs, s.ends[i]())
	}
	s.ends = nil
	return errors.Join(errs...)
}

func (s *rateSite) atEnd(f func() error) { s.ends = append(s.ends, f) }

// quietly adds a function without an error to those that end the site.
func (s *rateSite) quietly(f func()) { s.atEnd(func() error { f(); return nil }) }

func newRateSite(e *env) *rateSite {
	return &rateSite{relays: map[string]*proxyRelay{}, guards: map[string][]int{}, mail: filepath.Join(e.dir, "rate.eml"),
		records: filepath.Join(e.dir, verifier+".log"), greeted: filepath.Join(e.dir, "rate.log")}
}

// startRate starts everything. The caller must stop what it returns, even with an
// error.
func startRate(ctx context.Context, e *env) (*rateSite, error) {
	s := newRateSite(e)
	dns, err := s.startDNS()
	if err != nil {
		return s, err
	}
	idle, err := s.startIdle(ctx, bareService)
	if err != nil {
		return s, err
	}
	ours, err := s.startPostern(ctx, e, dns)
	if err != nil {
		return s, err
	}
	return s, s.open(ctx, attached{bareService, idle}, attached{guardedService, ours})
}

// attached is a service of the Postfix, and the servers that it asks.
type attached struct {
	service string
	guards
}

// open starts the Postfix with services, and what it delivers to.
func (s *rateSite) open(ctx context.Context, services ...attached) error {
	sink, err := s.startSink(ctx)
	if err != nil {
		return err
	}
	var more []postfixtest.Service
	for _, a := range services {
		more = append(more, postfixtest.Service{Name: a.service, Proxied: true, Options: a.options()})
	}
	s.postfix, err = postfixtest.Start(ctx, postfixtest.Config{
		// The clients are not looked up with this machine's name server.
		Main: []string{"virtual_transport = smtp:" + strings.Replace(sink, "127.0.0.1", "[127.0.0.1]", 1), "smtpd_peername_lookup = no"},
		More: more,
	})
	if err != nil {
		return err
	}
	s.atEnd(s.postfix.Stop)
	for _, a := range services {
		relay, err := startProxyRelay(s.postfix.Addr(a.service))
		if err != nil {
			return err
		}
		s.quietly(relay.stop)
		s.relays[a.service] = relay
	}
	return nil
}

// guards are the servers that a service asks, as Postfix writes them: inet:HOST:PORT or
// unix:PATH.
type guards struct{ milters, policies []string }

func (g guards) options() []string {
	restrictions := "smtpd_recipient_restrictions=reject_unauth_destination"
	for _, policy := range g.policies {
		restrictions += ", " + e2e.CheckPolicy(policy, "")
	}
	return []string{"smtpd_milters=" + strings.Join(g.milters, ","), restrictions}
}

// startDNS writes the message, and starts a DNS server with its records.
func (s *rateSite) startDNS() (addr string, err error) {
	key, record, err := newRSAKey()
	if err != nil {
		return "", err
	}
	if err := s.writeMail(key); err != nil {
		return "", err
	}
	zone := fmt.Sprintf(rateZone, splitTXT(record)) + dnsblWorld
	for i := range rateClients {
		zone += rateHelo + ". 3600 A " + rateClient(i) + "\n"
	}
	dns, err := resolvertest.Start(zone)
	if err != nil {
		return "", err
	}
	s.quietly(dns.Close)
	return dns.Addr(), nil
}

// writeMail writes the message.
func (s *rateSite) writeMail(key *rsa.PrivateKey) error {
	mail, err := dmarcMail(key, 10_000)
	if err != nil {
		return err
	}
	return os.WriteFile(s.mail, []byte(strings.ReplaceAll(mail, "\r\n", "\n")), 0o600)
}

func rateClient(i int) string { return "192.0.2." + strconv.Itoa(20+i%rateClients) }

// startIdle starts the servers that do nothing for a service.
func (s *rateSite) startIdle(ctx context.Context, service string) (g guards, err error) {
	for _, server := range []struct {
		arg string
		ask *[]string
	}{{idleMilterArg, &g.milters}, {dunnoArg, &g.policies}} {
		pid, addr, stop, err := startServer(ctx, server.arg)
		if err != nil {
			return g, err
		}
		s.guards[service] = append(s.guards[service], pid)
		s.quietly(stop)
		*server.ask = append(*server.ask, "inet:"+addr)
	}
	return g, nil
}

// startPostern starts both daemons with everything that they do for an MX, and makes
// the clients known to the greylist.
func (s *rateSite) startPostern(ctx context.Context, e *env, dns string) (g guards, err error) {
	milterAddr, err1 := postfixtest.FreeAddr()
	policyAddr, err2 := postfixtest.FreeAddr()
	table, err3 := writeOwners(e, "rate-owners")
	if err := errors.Join(err1, err2, err3); err != nil {
		return g, err
	}
	milterd, _, err := startVerifier(ctx, e, dns, "--listen-verify=inet:"+milterAddr)
	if err != nil {
		return g, err
	}
	s.atEnd(milterd.StopUnlessEnded)
	policyd, socket, err := startPolicyd(ctx, e, "rate", "--listen=inet:"+policyAddr, "--resolver="+dns, "--owners=hash:"+table,
		"--greylist-delay="+greylistDelay.String(), "--greylist-store=sqlite:"+filepath.Join(e.dir, "rate.db"))
	if err != nil {
		return g, err
	}
	s.atEnd(policyd.StopUnlessEnded)
	s.guards[guardedService] = []int{milterd.PID(), policyd.PID()}
	return guards{[]string{"inet:" + milterAddr}, []string{"inet:" + policyAddr}}, passGreylist(ctx, socket)
}

// passGreylist sends requests of every client until its mail passes.
func passGreylist(ctx context.Context, socket string) error {
	l := load{conns: 1, requests: rateClients, distinct: rateClients, request: func(_, i int) []byte {
		return fmt.Appendf(nil, policyRequest, rateClient(i), rateHelo, rateSender, rateTo, "rate."+strconv.Itoa(i), "")
	}}
	const tries = 20
	var actions map[string]int
	for range tries {
		var err error
		if _, actions, err = l.send(ctx, "unix", socket); err != nil || actions["DUNNO"] == rateClients {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(greylistDelay / 2):
		}
	}
	return fmt.Errorf("the greylist lets no one pass: %v", actions)
}

// startSink starts Postfix's own sink, which accepts and drops every mail.
func (s *rateSite) startSink(ctx context.Context) (addr string, err error) {
	if addr, err = postfixtest.FreeAddr(); err != nil {
		return "", err
	}
	const backlog = "1000"
	sink, err := postfixtest.StartServer(ctx, exec.Command("smtp-sink", "-u", "nobody", addr, backlog), func(context.Context) error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return "", err
	}
	s.quietly(sink.Kill)
	return addr, nil
}

// measure sends mails to both services in turn.
func (s *rateSite) measure(ctx context.Context) ([]result, error) {
	rates, costs := map[string][]float64{}, map[string][]float64{}
	var ratios []float64
	for round := range rounds + 1 {
		mails, order := rateMails, []string{bareService, guardedService}
		if round == 0 {
			mails = rateWarm
		}
		if round%2 == 0 {
			order[0], order[1] = order[1], order[0]
		}
		got := map[string]float64{}
		for _, service := range order {
			one, err := s.sample(ctx, subject{pids: s.guards[service]}, service, mails)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", service, err)
			}
			got[service] = one.rate()
			costs[service] = append(costs[service], one.micros())
		}
		if round == 0 {
			continue // processes were started, names were asked
		}
		for service, rate := range got {
			rates[service] = append(rates[service], rate)
		}
		ratios = append(ratios, got[guardedService]/got[bareService])
	}
	if err := s.judged(rateWarm + rounds*rateMails); err != nil {
		return nil, err
	}
	return []result{{what: "mails through Postfix, against servers that look at nothing", value: median(ratios), unit: "times", least: 0.9,
		detail: fmt.Sprintf("%.0f against %.0f mails/s (%s against %s), CPU of the servers %.0f against %.0f µs a mail; ratios %s",
			median(rates[guardedService]), median(rates[bareService]), spread(rates[guardedService]), spread(rates[bareService]),
			median(costs[guardedService]), median(costs[bareService]), spread(ratios))}}, nil
}

// sample sends mails to a service, and measures the server that it asks.
func (s *rateSite) sample(ctx context.Context, asked subject, service string, mails int) (sample, error) {
	return asked.take(ctx, func() (int, latencies, time.Duration, error) {
		wall, err := s.send(ctx, service, mails)
		return mails, nil, wall, err
	})
}

// send returns the time until the last mail has left Postfix.
func (s *rateSite) send(ctx context.Context, service string, mails int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, rateLimit)
	defer cancel()
	log, err := os.OpenFile(s.postfix.LogPath(), os.O_RDONLY|os.O_CREATE, 0o600) // postlogd(8) may not have made it yet
	if err != nil {
		return 0, err
	}
	defer log.Close()
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "smtp-source", "-s", strconv.Itoa(rateSessions), "-m", strconv.Itoa(mails),
		"-M", rateHelo, "-f", rateSender, "-t", rateTo, "-F", s.mail, "inet:"+s.relays[service].addr())
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("smtp-source: %w: %s\n%s", err, out, s.postfix.LogTail())
	}
	if err := waitSent(ctx, log, mails); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, s.postfix.LogTail())
	}
	return time.Since(start), nil
}

// waitSent continues to read Postfix's log until that many mails have left.
func waitSent(ctx context.Context, log io.Reader, mails int) error {
	lines := bufio.NewReaderSize(log, 64<<10)
	var line []byte
	for sent := 0; sent < mails; {
		part, err := lines.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			switch {
			case bytes.Contains(line, []byte("status=sent")):
				sent++
			case bytes.Contains(line, []byte("status=")), bytes.Contains(line, []byte("reject:")):
				return fmt.Errorf("a mail was not delivered: %s", line)
			}
			line = line[:0]
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d mails have left: %w", sent, mails, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// judged checks in Postern's records that it has judged every mail.
func (s *rateSite) judged(mails int) error {
	for path, want := range map[string][]string{
		s.records: {`"dmarc":"pass"`, `"dkim":"pass"`, `"spf":"pass"`},
		s.greeted: {`"check":"ownership"`, `"check":"dnsbl"`, `"check":"greylist"`},
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, word := range want {
			if n := bytes.Count(text, []byte(word)); n < mails {
				return fmt.Errorf("%d of %d mails have %s in their record", n, mails, word)
			}
		}
	}
	return nil
}

// proxyRelay relays connections and sends the client's address first, as HAProxy does.
// Without it, the mail would come from this machine and would not be checked. The cost
// is the same for both sides.
type proxyRelay struct {
	listener net.Listener
	target   string
	done     chan struct{}
}

func startProxyRelay(target string) (*proxyRelay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &proxyRelay{listener: listener, target: target, done: make(chan struct{})}
	go r.accept()
	return r, nil
}

func (r *proxyRelay) addr() string { return r.listener.Addr().String() }

func (r *proxyRelay) stop() {
	_ = r.listener.Close()
	<-r.done
}

// accept ends when the listener and all connections are closed.
func (r *proxyRelay) accept() {
	defer close(r.done)
	for i := 0; ; i++ {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		go r.relay(conn, i) // ends with smtp-source or Postfix
	}
}

func (r *proxyRelay) relay(client net.Conn, i int) {
	defer client.Close()
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return // the client sees the end
	}
	defer server.Close()
	from := netip.AddrPortFrom(netip.MustParseAddr(rateClient(i)), client.RemoteAddr().(*net.TCPAddr).AddrPort().Port())
	if _, err := io.WriteString(server, postfixtest.ProxyLine(from)); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, server)
}

// idleMilter looks at nothing and adds one field. Every verifier must add one, so
// Postfix's work for it is not a cost of the filter.
type idleMilter struct{ gomilter.NoOpMilter }

// Body ends the message.
func (idleMilter) Body(m *gomilter.Modifier) (gomilter.Response, error) {
	return gomilter.RespAccept, m.InsertHeader(0, "X-Idle", "seen")
}

// Connect sends no reply, as idleFlags say.
func (idleMilter) Connect(string, string, uint16, net.IP, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}

// Helo sends no reply either.
func (idleMilter) Helo(string, *gomilter.Modifier) (gomilter.Response, error) { return nil, nil }

// Headers sends no reply either.
func (idleMilter) Headers(textproto.MIMEHeader, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}

// Header sends no reply either.
func (idleMilter) Header(string, string, *gomilter.Modifier) (gomilter.Response, error) {
	return nil, nil
}

// BodyChunk sends no reply either.
func (idleMilter) BodyChunk([]byte, *gomilter.Modifier) (gomilter.Response, error) { return nil, nil }

// idleFlags are the protocol flags of postern-milterd.
const idleFlags = gomilter.OptNoUnknown | gomilter.OptNoData | gomilter.OptNoConnReply | gomilter.OptNoHeloReply |
	gomilter.OptNoHeaderReply | gomilter.OptNoEOHReply | gomilter.OptNoBodyReply

func serveIdleMilter(ready func(string), done io.Reader) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := gomilter.Server{NewMilter: func() gomilter.Milter { return idleMilter{} }, Protocol: idleFlags, Actions: gomilter.OptAddHeader}
	go server.Serve(listener) // ends with the process
	ready(listener.Addr().String())
	_, err = io.Copy(io.Discard, done)
	return err
}

// serveDunno is a policy server that answers DUNNO.
func serveDunno(ready func(string), done io.Reader) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ready(listener.Addr().String())
	return serveUntil(done, listener, echoPolicy)
}
