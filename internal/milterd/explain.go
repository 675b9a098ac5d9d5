package milterd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/milter/verify"
)

// ExplainArgs is a message, its envelope, and the settings of the daemon that verifies
// it.
type ExplainArgs struct {
	Message io.Reader // a file: lines may end in LF, and a "From " line may be first
	Client  string    // IP address
	Helo    string
	Sender  string // MAIL FROM, with or without brackets; "" is the null sender
	// At is when the message arrived. Zero means the time in its Received field, or
	// now if there is none.
	At time.Time
	// Settings are arguments of the daemon, including --config.
	Settings []string
}

// Explain verifies a message as the daemon would. No daemon has to run. An error means
// that the arguments or the file cannot be used.
func Explain(ctx context.Context, a ExplainArgs) (*api.Explanation, error) {
	client, err := netip.ParseAddr(a.Client)
	if err != nil {
		return nil, fmt.Errorf("client address: %w", err)
	}
	settings, err := configure(a.Settings, nil)
	if err != nil {
		return nil, err
	}
	dns, err := resolver.New(resolver.Config{Servers: settings.Resolvers, Timeout: settings.DNSTimeout})
	if err != nil {
		return nil, err
	}
	defer dns.Close()
	l := &dnsTrace{resolver: dns}
	life := service.NewLife()
	defer life.Discard()
	options, notes, err := settings.explained(l, life)
	if err != nil {
		return nil, err
	}
	fields, body, err := readMessage(a.Message)
	if err != nil {
		return nil, err
	}
	at, from := a.judgedAt(fields)
	options.Now = func() time.Time { return at }
	mail := verify.New(options).Start(ctx, verify.Envelope{Client: client, Helo: a.Helo, Sender: mailaddr.Parse(a.Sender)})
	defer mail.Close()
	mail.Header(fields)
	if _, err := io.Copy(mail, body); err != nil {
		return nil, fmt.Errorf("read the message: %w", err)
	}
	x := l.explain(mail.Finish(ctx))
	x.At, x.AtFrom, x.Notes, x.Whose = at, from, notes, settings.whoseFrom(client)
	return x, nil
}

// judgedAt returns the time at which signatures are verified, and where it was found.
func (a *ExplainArgs) judgedAt(fields []dkim.Field) (at time.Time, from string) {
	if !a.At.IsZero() {
		return a.At, api.AtFlag
	}
	if at, ok := arrival(fields); ok {
		return at, api.AtReceived
	}
	return time.Now(), api.AtNow
}

// explained returns the options of a verifier that asks l. The notes say how they
// differ from the daemon's.
func (s *settings) explained(l *dnsTrace, life *service.Life) (o verify.Options, notes []string, err error) {
	n := &needs{
		Runtime: service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{})),
		life:    life, set: s.set, options: &s.Options, asks: l, readOnly: true,
	}
	for _, room := range s.rooms {
		err := room.build(n)
		if err == nil {
			continue
		}
		secret, ok := room.part.(secretive)
		if !ok {
			return o, nil, err
		}
		notes = append(notes, secret.without()+": "+err.Error())
	}
	n.verify.Trace = l.spfEvent
	return n.verify, notes, nil
}

// secretive is a part that reads files which only the daemon may read. A mail is
// explained without such a part.
type secretive interface {
	// without returns a text that says what the explanation lacks.
	without() string
}

// dnsTrace passes DNS questions to a resolver, and keeps the questions and answers.
type dnsTrace struct {
	resolver *resolver.Resolver

	mu        sync.Mutex
	questions []api.Question
	steps     map[string][]string // of SPF, by identity
}

// ask passes one question to the resolver, and keeps it with its answer.
func ask[T any](l *dnsTrace, qtype, name string, lookup func() ([]T, error)) ([]T, error) {
	began := time.Now()
	answers, err := lookup()
	q := api.Question{Type: qtype, Name: strings.TrimSuffix(name, "."), Millis: float64(time.Since(began).Microseconds()) / 1000}
	for _, a := range answers {
		if mx, ok := any(a).(*net.MX); ok {
			q.Answers = append(q.Answers, fmt.Sprintf("%d %s", mx.Pref, mx.Host))
			continue
		}
		q.Answers = append(q.Answers, fmt.Sprint(a))
	}
	if err != nil {
		q.Error = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.questions = append(l.questions, q)
	return answers, err
}

func (l *dnsTrace) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return ask(l, "TXT", name, func() ([]string, error) { return l.resolver.LookupTXT(ctx, name) })
}

// Query passes on the question whether a name exists.
func (l *dnsTrace) Query(ctx context.Context, name string, qtype uint16) (resolver.Answer, error) {
	var answer resolver.Answer
	_, err := ask(l, "TXT", name, func() (texts []string, err error) {
		answer, err = l.resolver.Query(ctx, name, qtype)
		if err == nil && answer.Status == resolver.StatusNXDomain {
			texts = []string{"(no such name)"}
		}
		return texts, err
	})
	return answer, err
}

func (l *dnsTrace) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	qtype := map[string]string{"ip4": "A", "ip6": "AAAA", "ip": "A and AAAA"}[network]
	return ask(l, qtype, host, func() ([]netip.Addr, error) { return l.resolver.LookupNetIP(ctx, network, host) })
}

func (l *dnsTrace) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return ask(l, "MX", name, func() ([]*net.MX, error) { return l.resolver.LookupMX(ctx, name) })
}

func (l *dnsTrace) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return ask(l, "PTR", addr, func() ([]string, error) { return l.resolver.LookupAddr(ctx, addr) })
}

// spfEvent keeps SPF records and terms. Questions are kept by ask.
func (l *dnsTrace) spfEvent(identity string, e spf.Event) {
	text := strings.Repeat("  ", e.Depth)
	switch e.Kind {
	case spf.EventRecord:
		text += e.Domain + ": " + e.Text
	case spf.EventTerm:
		text += "  " + e.Text + ": " + e.Outcome
	default:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.steps == nil {
		l.steps = make(map[string][]string)
	}
	l.steps[identity] = append(l.steps[identity], text)
}

// explain builds the explanation from the result and what was kept.
func (l *dnsTrace) explain(r verify.Result) *api.Explanation {
	x := &api.Explanation{Questions: l.questions, Reason: string(r.Reason), Error: errorText(r.Err), Signatures: []api.ExplainedDKIM{}}
	for _, p := range r.Remove {
		x.Removed = append(x.Removed, fmt.Sprintf("%s[%d]", p.Name, p.Index))
	}
	for _, f := range r.Fields {
		x.Added = append(x.Added, api.ExplainedField{Name: f.Name, Value: strings.TrimPrefix(f.Value, " ")})
	}
	if r.Refusal != nil {
		x.Refused = fmt.Sprintf("%d %s %s", r.Refusal.Code, r.Refusal.Status, r.Refusal.Text)
	}
	x.Held = r.Quarantine
	f := r.Findings
	if f == nil {
		return x
	}
	x.ARC, x.DMARC = explainARC(&f.ARC), explainDMARC(f)
	x.From = f.From()
	x.SPF = append(x.SPF, l.explainSPF(verify.IdentityMailFrom, f.MailFrom.Result))
	if f.Helo.Status != "" {
		x.SPF = append(x.SPF, l.explainSPF(verify.IdentityHelo, f.Helo.Result))
	}
	for i := range f.DKIM.Signatures {
		x.Signatures = append(x.Signatures, explainDKIM(&f.DKIM.Signatures[i]))
	}
	x.SkippedSig = f.DKIM.Skipped
	x.IPRev = strings.TrimSpace(string(f.IPRev.Value) + " " + cmp.Or(f.IPRev.Name, errorText(f.IPRev.Err)))
	return x
}

func (l *dnsTrace) explainSPF(identity string, r spf.Result) api.ExplainedSPF {
	x := api.ExplainedSPF{
		Identity: identity, Domain: r.Domain, Result: string(r.Status), Mechanism: r.Mechanism, Path: r.Path,
		Explanation: r.Explanation, Lookups: r.Lookups, Voids: r.Voids, Error: errorText(r.Err), Steps: l.steps[identity],
	}
	if r.Network.IsValid() {
		x.Network = r.Network.String()
	}
	return x
}

func explainDKIM(s *dkim.Signature) api.ExplainedDKIM {
	return api.ExplainedDKIM{
		Result: string(s.Status), Reason: s.Reason, Domain: s.Domain, Selector: s.Selector, Identity: s.Identity,
		Algorithm: s.Algorithm, KeyBits: s.KeyBits, Signed: s.Signed, Error: errorText(s.Err),
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
