// Command try shows Postern at work. It starts a private Postfix that asks
// postern-policyd and postern-milterd, and sends mails to it. It prints Postfix's
// answers, what was signed, and why. If an answer is not the expected one, it exits
// with 1 and keeps the logs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/postern-mail/postern/internal/e2e"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// limit bounds the run. The builds before it may take longer on a small machine.
const limit = 5 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, limit)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "try:", err)
		os.Exit(1)
	}
}

// run builds the programs, and then shows everything within limit. It keeps the site's
// directory if something failed.
func run(ctx context.Context, out io.Writer, limit time.Duration) (err error) {
	binaries, err := postfixtest.NewBinaries()
	if err != nil {
		return err
	}
	dir, err := postfixtest.MakeDir()
	if err != nil {
		return errors.Join(err, binaries.Close())
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir)
		} else {
			err = fmt.Errorf("%w\nThe logs are left in %s, %s and %s", err, filepath.Join(dir, policydLog), filepath.Join(dir, milterdLog), filepath.Join(dir, "postfix", "mail.log"))
		}
		err = errors.Join(err, binaries.Close())
	}()
	began := time.Now()
	progress := func(step string) {
		fmt.Fprintf(out, "%5.1fs  %s\n", time.Since(began).Seconds(), step)
	}
	for _, name := range []string{"postern", "postern-policyd", "postern-milterd"} {
		progress("building " + name)
		if _, err := binaries.Path(ctx, name); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done %s after the builds", limit))
	defer cancel()
	if err := show(ctx, out, dir, binaries, progress); err != nil {
		return because(ctx, err)
	}
	return nil
}

// because adds to an error why ctx has ended, unless the error says so.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// The logs of the daemons in the site's directory.
const (
	policydLog = "policyd.log"
	milterdLog = "milterd.log"
)

func show(ctx context.Context, out io.Writer, dir string, binaries *postfixtest.Binaries, progress func(string)) (err error) {
	log, err := os.Create(filepath.Join(dir, policydLog))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	signLog, err := os.Create(filepath.Join(dir, milterdLog))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, signLog.Close()) }()
	dns, err := resolvertest.Start(e2e.Zones)
	if err != nil {
		return err
	}
	defer dns.Close()
	store, stopStore, err := greylistStore(ctx, dir, progress)
	if err != nil {
		return err
	}
	defer stopStore()
	config := e2e.SiteConfig{Binaries: binaries, Dir: dir, Progress: progress, Log: log, SignLog: signLog, Signing: true}
	site, err := e2e.Start(ctx, e2e.WithLimits(e2e.WithGreylist(e2e.WithLists(config, dns.Addr()), store)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Stop()) }()
	progress(fmt.Sprintf("sending mails to %s (MX) and %s (submission)",
		site.Postfix.Addr(postfixtest.MX), site.Postfix.Addr(postfixtest.Submission)))
	var wrong error
	for _, send := range []section{sendAll, sendGreylisted, sendLimited, sendSigned, sendVerified, sendDMARC, sendReported, sendFrom, rotateKeys} {
		rows, notExpected, err := send(ctx, site)
		if err != nil {
			return err
		}
		wrong = errors.Join(wrong, notExpected)
		fmt.Fprintln(out)
		printTable(out, rows)
	}
	fmt.Fprintf(out, "\nA record, one line of postern-policyd's log:\n\n%s\n", aRefusal(site))
	return wrong
}

// section sends some mails. It returns the rows of a table about them; wrong is what
// was not as expected.
type section func(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error)

// aRefusal returns the record of a mail that was refused.
func aRefusal(site *e2e.Site) string {
	for _, r := range site.Policyd.Records() {
		if r.Verdict == "reject" {
			return strings.TrimSpace(r.Raw)
		}
	}
	return "(nothing was refused)"
}

// greylistStore returns the URL of the embedded store or, with STORE=redis, of a
// private Redis. stop ends it.
func greylistStore(ctx context.Context, dir string, progress func(string)) (url string, stop func(), err error) {
	switch store := os.Getenv(e2e.RedisEnv); store {
	case "":
		return "sqlite:" + filepath.Join(dir, "greylist.db"), func() {}, nil
	case "redis":
		progress("starting a private Redis")
		return e2e.StartRedis(ctx, dir)
	default:
		return "", nil, fmt.Errorf("%s=%q: the stores are the embedded one (not set) and redis", e2e.RedisEnv, store)
	}
}

// sendAll sends the mails that ownership and DNS lists decide.
func sendAll(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"MAIL", "POSTFIX ANSWERED", "WHY"}}
	for i, c := range e2e.Cases() {
		o, err := c.Run(ctx, site)
		if err != nil {
			return nil, nil, err
		}
		wrong = errors.Join(wrong, o.Wrong)
		rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, c.Name), o.Reply.String(), why(o, site.Dir)})
	}
	return rows, wrong, nil
}

// sendGreylisted sends the mails of servers that are new to the greylist.
func sendGreylisted(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"MAIL OF A NEW SENDER", "POSTFIX ANSWERED", "WHY"}}
	for i, c := range e2e.GreylistCases() {
		o, header, err := c.RunGreylist(ctx, site)
		if err != nil {
			return nil, nil, err
		}
		if header != "" {
			header = "; X-Greylist: " + header
		}
		wrong = errors.Join(wrong, o.Wrong)
		rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, c.Name), o.Reply.String(), why(o, site.Dir) + header})
	}
	return rows, wrong, nil
}

// sendLimited makes an account send too much, and shows what the administrator does
// then.
func sendLimited(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"AN ACCOUNT THAT SENDS TOO MUCH", "WHAT HAPPENED", "WHY"}}
	shown, wrong, err := e2e.LimitStory(ctx, site)
	for i, s := range shown {
		rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, s.Name), s.Answer, s.Why})
	}
	return rows, wrong, err
}

// sendSigned sends the mails that must be signed, or must not. Debian's verifier checks
// what was delivered.
func sendSigned(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"MAIL OF OUR OWN", "DELIVERED WITH", "WHY"}}
	for i, c := range e2e.SignCases() {
		o, err := c.Run(ctx, site)
		if err != nil {
			return nil, nil, err
		}
		why := o.Why()
		if o.Wrong != nil {
			why += " (NOT AS EXPECTED)"
		}
		wrong = errors.Join(wrong, o.Wrong)
		rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, c.Name), fmt.Sprintf("%d signatures", o.All), why})
	}
	return rows, wrong, nil
}

// sendVerified sends the mails from outside that Postern verifies.
func sendVerified(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"MAIL FROM OUTSIDE", "RECORD", "WHAT ITS READERS ARE TOLD"}}
	for i, c := range e2e.VerifyCases() {
		all, err := c.Run(ctx, site)
		if err != nil {
			return nil, nil, err
		}
		for _, o := range all {
			told := o.Results
			if o.Wrong != nil {
				told += " (NOT AS EXPECTED)"
			}
			wrong = errors.Join(wrong, o.Wrong)
			rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, c.Name), o.Record.Reason + ", " + o.Record.Action, told})
		}
	}
	return rows, wrong, nil
}

// sendDMARC sends the mails whose author is a bank, or claims to be.
func sendDMARC(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"MAIL FROM: A BANK", "POSTFIX ANSWERED", "DMARC"}}
	for i, c := range e2e.DMARCCases() {
		o, err := c.Run(ctx, site)
		if err != nil {
			return nil, nil, err
		}
		text := fmt.Sprintf("%s, disposition %s, rule %s", o.Record.DMARC, o.Record.Disposition, o.Rule())
		if o.Delivered.Header("X-Postern-Quarantine") != "" {
			text += "; delivered with X-Postern-Quarantine"
		}
		if o.Record.ARC != "none" {
			text += "; arc=" + o.Record.ARC
		}
		if o.Wrong != nil {
			text += " (NOT AS EXPECTED)"
		}
		wrong = errors.Join(wrong, o.Wrong)
		rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, c.Name), o.Reply.String(), text})
	}
	return rows, wrong, nil
}

// sendReported shows the report that the bank gets about mails in its name.
func sendReported(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"A DMARC REPORT TO THE BANK", "COUNTED", "WHAT IT SAYS"}}
	counted, to, err := site.PreviewReport(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range counted {
		rows = append(rows, []string{"from " + r.Source, fmt.Sprintf("%d mails; the report goes to %s", r.Count, to),
			fmt.Sprintf("disposition %s, dkim %s, spf %s %s", r.Disposition, r.DKIM, r.SPF, strings.Join(r.Reasons, " "))})
	}
	if len(counted) != 2 || to != "dmarc@bank.example" {
		wrong = fmt.Errorf("the report has %d rows and goes to %q, expected 2 and dmarc@bank.example", len(counted), to)
	}
	return rows, wrong, nil
}

// sendFrom sends the mails whose From may differ from the login's address.
func sendFrom(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"FROM OF WHO HAS LOGGED IN", "POSTFIX ANSWERED", "WHY"}}
	for i, c := range e2e.FromCases() {
		o, err := c.Run(ctx, site)
		if err != nil {
			return nil, nil, err
		}
		step := o.Step()
		text := strings.TrimSpace(step.Reason + " " + strings.ReplaceAll(step.Detail, site.Dir+"/", ""))
		if text == "" {
			text = "no login: not asked"
		}
		if o.Wrong != nil {
			text += " (NOT AS EXPECTED)"
		}
		wrong = errors.Join(wrong, o.Wrong)
		rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, c.Name), o.Reply.String(), text})
	}
	return rows, wrong, nil
}

// why returns the record in words, without the directory, which would fill the line.
func why(o e2e.Outcome, dir string) string {
	reason, detail := o.Record.Why()
	text := strings.TrimSpace(reason + " " + strings.ReplaceAll(detail, dir+"/", ""))
	if o.Wrong != nil {
		text += " (NOT AS EXPECTED)"
	}
	return text
}

// rotateKeys replaces the keys of the site, and sends a mail at each step.
func rotateKeys(ctx context.Context, site *e2e.Site) (rows [][]string, wrong, err error) {
	rows = [][]string{{"ROTATING THE DKIM KEYS", "A MAIL OF ALICE'S", "STEPS"}}
	shown, wrong, err := e2e.RotationStory(ctx, site)
	for i, s := range shown {
		rows = append(rows, []string{fmt.Sprintf("%d. %s", i+1, s.When), s.Mail, s.Steps})
	}
	return rows, wrong, err
}
