package main

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/dmarcreport"
)

// dmarcReportCommands are the commands about reports to other domains.
func dmarcReportCommands() []command {
	return []command{
		{path: "dmarc report", args: "preview|send|list|retry [DOMAIN] [DAY]", help: "the reports that other domains ask for: show, send, list them, or try again", bind: bindDMARCReport,
			words: map[string][]string{"": {"preview", "send", "list", "retry"}}},
		{path: "dmarc bounce", args: "[RECIPIENT]", help: "read a report that came back, from standard input", bind: bindDMARCBounce},
	}
}

// reportAsked holds the flags of "dmarc report".
type reportAsked struct {
	*admin.Client
	asJSON bool
	toDir  string
}

func bindDMARCReport(fs *pflag.FlagSet) runner {
	o := &reportAsked{Client: milterdClient(fs)}
	fs.BoolVar(&o.asJSON, "json", false, "print what is listed or sent as JSON, one object a line")
	fs.StringVar(&o.toDir, "to-dir", "", "write the files of preview and send into this `folder`, and send nothing")
	return func(ctx context.Context, std streams, args []string) (int, error) {
		if len(args) < 1 || len(args) > 3 {
			return exitFailed, errUsage
		}
		ask, err := reportArgs(args[1:])
		if err != nil {
			return exitFailed, err
		}
		switch {
		case args[0] == "list":
			return o.list(ctx, std, ask)
		case args[0] == "preview", args[0] == "send" && o.toDir != "":
			return o.preview(ctx, std, ask)
		case args[0] == "send":
			return o.send(ctx, std, ask)
		case args[0] == "retry":
			ask.Again = true
			return o.send(ctx, std, ask)
		}
		return exitFailed, errUsage
	}
}

// reportArgs parses [DOMAIN] [DAY]. Both are optional.
func reportArgs(args []string) (ask api.DMARCReportArgs, err error) {
	for _, arg := range args {
		_, notDay := dmarcreport.ParseDay(arg)
		switch {
		case notDay == nil && ask.Day == "":
			ask.Day = arg
		case notDay != nil && ask.Domain == "":
			ask.Domain = arg
		default:
			return ask, errUsage
		}
	}
	return ask, nil
}

func (o *reportAsked) list(ctx context.Context, std streams, ask api.DMARCReportArgs) (int, error) {
	var result api.DMARCReportListResult
	t := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	if !o.asJSON {
		fmt.Fprintln(t, "DAY\tDOMAIN\tMAILS\tROWS\tSTATE\tTO")
	}
	var broken error
	err := eachRest(&ask, func() (*api.DMARCReportPlace, error) {
		result = api.DMARCReportListResult{}
		err := o.Call(ctx, api.DMARCReportList, ask, &result, func(line json.RawMessage) {
			var r api.DMARCReport
			if broken = errors.Join(broken, json.Unmarshal(line, &r)); broken != nil {
				return
			}
			if o.asJSON {
				fmt.Fprintf(std.out, "%s\n", line)
				return
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", daysOf(&r), printable(r.Domain), r.Messages, r.Rows, r.State, deliveries(&r))
		})
		return result.After, err
	})
	if err = errors.Join(err, broken); err != nil {
		return exitFailed, err
	}
	if o.asJSON {
		return exitYes, json.NewEncoder(std.out).Encode(result)
	}
	if err := t.Flush(); err != nil {
		return exitFailed, err
	}
	for _, d := range result.Dead {
		fmt.Fprintf(std.out, "no reports to %s until %s: %s\n", printable(d.Address), clock(&d.Until), printable(d.Why))
	}
	for _, missing := range result.Missing {
		fmt.Fprintf(std.out, "nothing is sent: %s\n", printable(missing))
	}
	return exitYes, nil
}

// eachRest calls call until it returns no place from which to continue.
func eachRest(ask *api.DMARCReportArgs, call func() (*api.DMARCReportPlace, error)) error {
	for {
		after, err := call()
		if err != nil || after == nil {
			return err
		}
		ask.After = after
	}
}

// daysOf returns the days that a report covers.
func daysOf(r *api.DMARCReport) string {
	if r.Since != "" {
		return r.Since + ".." + r.Day
	}
	return r.Day
}

func deliveries(r *api.DMARCReport) string {
	if len(r.Deliveries) == 0 {
		return printable(r.Why)
	}
	var all []string
	for _, d := range r.Deliveries {
		text := printable(d.To) + " " + d.State
		if d.Error != "" {
			text += " (" + printable(d.Error) + ")"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// preview prints reports, or writes their files into a folder.
func (o *reportAsked) preview(ctx context.Context, std streams, ask api.DMARCReportArgs) (int, error) {
	reports := 0
	out := &previews{std: std, folder: o.toDir, asJSON: o.asJSON}
	err := eachRest(&ask, func() (*api.DMARCReportPlace, error) {
		var done api.DMARCReportDone
		err := o.Call(ctx, api.DMARCReportPreview, ask, &done, out.take)
		reports += done.Reports
		return done.After, err
	})
	if out.err == nil {
		out.err = err // the last file may be incomplete
	}
	if err = out.end(); err != nil {
		return exitFailed, err
	}
	if reports == 0 {
		fmt.Fprintln(std.err, "nothing was counted that is to be reported")
		return exitNo, nil
	}
	return exitYes, nil
}

// previews writes the pieces of files as they arrive.
type previews struct {
	std    streams
	folder string // "" to print the reports
	asJSON bool   // print what is known about the reports instead

	pipe *io.PipeWriter // to the code that prints
	done chan error
	file *os.File
	name string // of the file once it is complete
	err  error
}

func (p *previews) take(line json.RawMessage) {
	var piece api.DMARCReportFile
	if p.err == nil {
		p.err = json.Unmarshal(line, &piece)
	}
	if p.err == nil && piece.Report != nil {
		if p.err = p.end(); p.err == nil {
			p.err = p.begin(piece.Report)
		}
	}
	if p.err != nil || len(piece.Data) == 0 {
		return
	}
	if p.file != nil {
		_, p.err = p.file.Write(piece.Data)
	} else if p.pipe != nil {
		_, p.err = p.pipe.Write(piece.Data)
	}
}

// begin opens the destination for the pieces of a report.
func (p *previews) begin(r *api.DMARCReport) error {
	if p.asJSON {
		if err := json.NewEncoder(p.std.out).Encode(r); err != nil || p.folder == "" {
			return err
		}
		return p.create(r.File)
	}
	fmt.Fprintf(p.std.err, "%s %s: %d mails, %s\n  file %s\n", daysOf(r), printable(r.Domain), r.Messages, r.State, printable(r.File))
	if r.Why != "" || len(r.Deliveries) == 0 {
		fmt.Fprintf(p.std.err, "  to   no one: %s\n", printable(r.Why))
	}
	for _, d := range r.Deliveries {
		fmt.Fprintf(p.std.err, "  to   %s %s\n", printable(d.To), printable(d.State+" "+d.Error))
	}
	for _, refused := range r.Refused {
		fmt.Fprintf(p.std.err, "  not  %s\n", printable(refused))
	}
	if p.folder != "" {
		return p.create(r.File)
	}
	in, out := io.Pipe()
	p.pipe, p.done = out, make(chan error, 1)
	go func() {
		z, err := gzip.NewReader(in)
		if err == nil {
			_, err = io.Copy(p.std.out, z)
		}
		_ = in.CloseWithError(err)
		p.done <- err
	}()
	return nil
}

// create creates the file of a report. It has another name until it is complete. Others
// who may write into the folder know the names of reports, and may have put a link there.
func (p *previews) create(name string) (err error) {
	if filepath.Base(name) != name {
		return fmt.Errorf("%q is no name of a file", name)
	}
	p.name = filepath.Join(p.folder, name)
	if p.file, err = os.CreateTemp(p.folder, ".dmarc-report-*"); err != nil {
		return err
	}
	return p.file.Chmod(0o640)
}

// finish gives the file its name if it is complete, and else removes it.
func (p *previews) finish() error {
	draft := p.file.Name()
	err := p.file.Close()
	p.file = nil
	if err == nil && p.err == nil {
		err = os.Rename(draft, p.name)
	}
	if err != nil || p.err != nil {
		err = errors.Join(err, os.Remove(draft))
	}
	return err
}

// end closes the destination of the last report.
func (p *previews) end() error {
	var err error
	if p.file != nil {
		err = p.finish()
	}
	if p.pipe != nil {
		_ = p.pipe.Close()
		err = <-p.done
		p.pipe = nil
	}
	return errors.Join(p.err, err)
}

// send answers exitNo when a report waits for another try.
func (o *reportAsked) send(ctx context.Context, std streams, ask api.DMARCReportArgs) (int, error) {
	failed, code := 0, exitYes
	err := eachRest(&ask, func() (*api.DMARCReportPlace, error) {
		var done api.DMARCReportDone
		err := o.Call(ctx, api.DMARCReportSend, ask, &done, func(line json.RawMessage) {
			var e api.DMARCReportEvent
			if json.Unmarshal(line, &e) != nil {
				return
			}
			if e.State != dmarcreport.Sent && e.State != "none" {
				code = exitNo
			}
			if o.asJSON {
				fmt.Fprintf(std.out, "%s\n", line)
				return
			}
			fmt.Fprintln(std.out, printable(strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", e.Day, e.Domain, e.State, e.To, e.Error))))
		})
		failed += done.Failed
		return done.After, err
	})
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("%w; what was sent is not sent again, and the next run sends the rest", err)
	}
	if err != nil {
		return exitFailed, err
	}
	if failed > 0 {
		fmt.Fprintf(std.err, "%d reports wait for another try\n", failed)
		code = exitNo
	}
	return code, nil
}

// exitAgain is EX_TEMPFAIL of sysexits.h: Postfix keeps the mail and tries again.
// Without it, a bounce would be lost while the daemon restarts.
const exitAgain = 75

// bindDMARCBounce is run by Postfix's local(8), which names the recipient in the
// environment.
func bindDMARCBounce(fs *pflag.FlagSet) runner {
	client := milterdClient(fs)
	return func(ctx context.Context, std streams, args []string) (int, error) {
		if len(args) > 1 {
			return exitFailed, errUsage
		}
		token := ""
		for _, recipient := range append(args, os.Getenv("ORIGINAL_RECIPIENT"), os.Getenv("RECIPIENT")) {
			token = cmp.Or(token, dmarcreport.TokenOf(recipient))
		}
		if token == "" {
			return exitFailed, errors.New("the recipient is no envelope sender of a report; name it, as LOCAL+b.TOKEN@DOMAIN")
		}
		b, err := dmarcreport.ReadBounce(stdin(ctx))
		if err != nil {
			return exitFailed, err
		}
		err = client.Call(ctx, api.DMARCReportBounce, api.DMARCReportBounceArgs{Token: token, Failed: b.Failed, Why: b.Why}, nil, nil)
		var refused *admin.Error
		switch {
		case err == nil:
			return exitYes, nil
		case errors.As(err, &refused) && refused.Code == admin.CodeBadArgs:
			return exitFailed, err
		}
		fmt.Fprintf(std.err, "postern dmarc bounce: %s\n", printable(err.Error()))
		return exitAgain, nil
	}
}
