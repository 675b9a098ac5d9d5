package milterd

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/mailaddr"
)

func reportCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.DMARCReportList:    command(c, (*reportPart).list),
		api.DMARCReportPreview: command(c, (*reportPart).preview),
		api.DMARCReportSend:    command(c, (*reportPart).send),
		api.DMARCReportBounce:  command(c, (*reportPart).bounce),
	}
}

// pieceOctets is the size of a part of a file in one line of the admin socket.
const pieceOctets = 256 << 10

var errNoReportStore = &admin.Error{Code: admin.CodeFailed, Message: "nothing is counted: set report-store, as sqlite:/var/lib/postern/reports.db"}

// ready returns the sender, after everything that was counted is written.
func (o *reportPart) ready(ctx context.Context) (*dmarcreport.Sender, error) {
	if o.counts == nil {
		return nil, errNoReportStore
	}
	if err := o.counts.Flush(ctx); err != nil {
		return nil, err
	}
	return o.sender, nil
}

// selection parses which reports are meant.
func selection(args api.DMARCReportArgs) (sel dmarcreport.Selection, err error) {
	sel.Again = args.Again
	if args.Domain != "" {
		if sel.Domain, err = mailaddr.ParseDomain(args.Domain); err != nil {
			return sel, &admin.Error{Code: admin.CodeBadArgs, Message: args.Domain + ": " + err.Error()}
		}
	}
	if args.Day != "" {
		if sel.Day, err = dmarcreport.ParseDay(args.Day); err != nil {
			return sel, &admin.Error{Code: admin.CodeBadArgs, Message: args.Day + " is no day; write it as 2026-11-25"}
		}
	}
	if args.After != nil {
		sel.After = dmarcreport.Place{Day: dmarcreport.Day(args.After.Day), Domain: args.After.Domain}
	}
	return sel, nil
}

// workFor is how long one command works. The admin socket ends it after a minute.
const workFor = 35 * time.Second

var errEnough = errors.New("the next command goes on")

// each calls f for the selected reports. If the time is over, it returns where it has
// stopped.
func (o *reportPart) each(ctx context.Context, args api.DMARCReportArgs, f func(*dmarcreport.Sender, *dmarcreport.Report) error) (n int, rest api.DMARCReportRest, err error) {
	sel, err := selection(args)
	if err != nil {
		return 0, rest, err
	}
	sender, err := o.ready(ctx)
	if err != nil {
		return 0, rest, err
	}
	began := time.Now()
	err = sender.Each(ctx, sel, func(r *dmarcreport.Report) error {
		n++
		if err := f(sender, r); err != nil {
			return err
		}
		if time.Since(began) > workFor {
			rest.After = &api.DMARCReportPlace{Day: int32(r.Day), Domain: r.Domain.Name}
			return errEnough
		}
		return ctx.Err()
	})
	if err != nil && !errors.Is(err, errEnough) {
		return n, rest, err
	}
	return n, rest, nil
}

// list shows what is known about each report.
func (o *reportPart) list(ctx context.Context, args api.DMARCReportArgs, progress func(any)) (any, error) {
	result := api.DMARCReportListResult{Missing: o.missing(ctx), Dead: []api.DMARCReportDead{}}
	var err error
	result.Reports, result.DMARCReportRest, err = o.each(ctx, args, func(s *dmarcreport.Sender, r *dmarcreport.Report) error {
		shown, err := showReport(ctx, s, r)
		if err == nil {
			progress(shown)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	err = o.sender.EachSuppressed(ctx, func(address string, d dmarcreport.Suppressed) error {
		if len(result.Dead) < maxDead {
			result.Dead = append(result.Dead, api.DMARCReportDead{Address: address, Bounces: d.Bounces, Until: d.Until, Why: d.Why})
		}
		return nil
	})
	return result, err
}

// maxDead is how many dead addresses are listed.
const maxDead = 1000

// showReport returns a report in the form that the command shows.
func showReport(ctx context.Context, s *dmarcreport.Sender, r *dmarcreport.Report) (*api.DMARCReport, error) {
	state, err := s.StateOf(ctx, r)
	if err != nil {
		return nil, err
	}
	shown := &api.DMARCReport{
		Day: r.Day.String(), Domain: r.Domain.Name, Messages: r.Domain.Messages, Rows: r.Domain.Rows,
		File: state.File, State: "due", Why: state.Why, Deliveries: []api.DMARCReportDelivery{},
	}
	if r.Domain.Since != 0 {
		shown.Since = r.Domain.Since.String()
	}
	switch {
	case !s.Closed(r.Day):
		shown.State = "open"
	case state.Done && len(state.To) == 0:
		shown.State = "none"
	case state.Done:
		shown.State = "done"
	case len(state.To) > 0:
		shown.State = "waiting"
	}
	for _, d := range state.To {
		one := api.DMARCReportDelivery{To: d.Address, State: d.State, Tries: d.Tries, Error: d.Error}
		if !d.Next.IsZero() {
			one.Next = &d.Next
		}
		shown.Deliveries = append(shown.Deliveries, one)
	}
	return shown, nil
}

// preview writes the files of reports and sends nothing.
func (o *reportPart) preview(ctx context.Context, args api.DMARCReportArgs, progress func(any)) (any, error) {
	n, rest, err := o.each(ctx, args, func(s *dmarcreport.Sender, r *dmarcreport.Report) error {
		shown, err := showReport(ctx, s, r)
		if err != nil {
			return err
		}
		wanted, err := dmarcreport.Find(ctx, s.Resolver, r.Domain.Name)
		if err = errors.Join(err, wanted.Undecided); err != nil {
			shown.Refused = append(shown.Refused, "the DNS lookup of who wants it failed: "+err.Error())
		}
		for _, refused := range wanted.Refused {
			shown.Refused = append(shown.Refused, refused.URI+": "+refused.Why)
		}
		for _, d := range wanted.Destinations {
			if !slices.ContainsFunc(shown.Deliveries, func(one api.DMARCReportDelivery) bool { return one.To == d.Address }) {
				shown.Deliveries = append(shown.Deliveries, api.DMARCReportDelivery{To: d.Address, State: dmarcreport.Waiting})
			}
		}
		progress(api.DMARCReportFile{Report: shown})
		w := &pieces{progress: progress}
		if err := r.WriteGzip(ctx, w, s.Store); err != nil {
			return err
		}
		w.flush()
		return nil
	})
	return api.DMARCReportDone{Reports: n, DMARCReportRest: rest}, err
}

// pieces sends a file in pieces.
type pieces struct {
	progress func(any)
	piece    []byte
}

var _ io.Writer = (*pieces)(nil)

func (p *pieces) Write(b []byte) (int, error) {
	p.piece = append(p.piece, b...)
	if len(p.piece) >= pieceOctets {
		p.flush()
	}
	return len(b), nil
}

func (p *pieces) flush() {
	if len(p.piece) > 0 {
		p.progress(api.DMARCReportFile{Data: p.piece})
		p.piece = nil
	}
}

// send sends the reports that are due.
func (o *reportPart) send(ctx context.Context, args api.DMARCReportArgs, progress func(any)) (any, error) {
	if missing := o.missing(ctx); len(missing) > 0 {
		return nil, errors.New("nothing can be sent: " + missing[0])
	}
	done := api.DMARCReportDone{}
	_, rest, err := o.each(ctx, args, func(ready *dmarcreport.Sender, r *dmarcreport.Report) error {
		sender := *ready
		sender.Event = func(e dmarcreport.Event) {
			if e.To != "" {
				done.Reports++
			}
			o.counts.event(e)
			progress(api.DMARCReportEvent{Day: e.Day.String(), Domain: e.Domain, File: e.File, To: e.To, State: e.State, Error: e.Error})
		}
		if !sender.SendOne(ctx, r, args.Again) {
			done.Failed++
		}
		return nil
	})
	done.DMARCReportRest = rest
	return done, err
}

// event logs and counts an event of a report.
func (c *reportCounts) event(e dmarcreport.Event) {
	if e.To != "" {
		c.mails.WithLabelValues(e.State).Inc()
	}
	fields := []zap.Field{zap.String("domain", e.Domain), zap.String("day", e.Day.String()), zap.String("file", e.File), zap.String("to", e.To), zap.String("state", e.State)}
	if e.Error != "" {
		fields = append(fields, zap.String("error", e.Error))
	}
	switch e.State {
	case dmarcreport.Sent, "none":
		c.log.Info("dmarc report", fields...)
	default:
		c.log.Warn("dmarc report", fields...)
	}
}

// bounce records that a report bounced.
func (o *reportPart) bounce(ctx context.Context, args api.DMARCReportBounceArgs, _ func(any)) (any, error) {
	if o.counts == nil {
		return nil, errNoReportStore
	}
	address, err := o.sender.TakeBounce(ctx, args.Token, dmarcreport.Bounce{Failed: args.Failed, Why: args.Why})
	if errors.Is(err, dmarcreport.ErrNoToken) {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: err.Error()}
	}
	if err != nil {
		return nil, err
	}
	if args.Failed {
		o.counts.event(dmarcreport.Event{Day: dmarcreport.DayOf(time.Now()), Domain: "", To: address, State: dmarcreport.Bounced, Error: args.Why})
	}
	return api.DMARCReportBounced{Address: address}, nil
}
