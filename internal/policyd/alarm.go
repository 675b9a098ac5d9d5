package policyd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/policy/checks"
)

const (
	// maxAlarms is how many alarms wait for the command or the mail.
	maxAlarms = 64
	// alarmTimeout bounds one run of the command, and one mail.
	alarmTimeout = 30 * time.Second
	// maxAlarmOutput is how much of the output of the command is logged.
	maxAlarmOutput = 500
)

// alarmFlags are the flags that decide who is notified of limits that are reached.
type alarmFlags struct {
	AlarmCommand string
	AlarmMail    string
	AlarmSMTP    string

	passed *alarms // nil if no one is notified
}

func (f *alarmFlags) bind(fs *pflag.FlagSet) {
	fs.StringVar(&f.AlarmCommand, "alarm-command", "", "`program` that is run when a limit is reached, with the alarm as JSON on its standard input")
	fs.StringVar(&f.AlarmMail, "alarm-mail", "", "`address` that a mail is sent to when a limit is reached")
	fs.StringVar(&f.AlarmSMTP, "alarm-smtp", "inet:127.0.0.1:25", "`endpoint` of the SMTP server that takes this mail")
}

func (f *alarmFlags) validate(s *config.Set) error {
	var errs []error
	if f.AlarmCommand != "" && !filepath.IsAbs(f.AlarmCommand) {
		errs = append(errs, s.Errorf("alarm-command", "%q is relative: write it from the root, without arguments", f.AlarmCommand))
	}
	if a := mailaddr.Parse(f.AlarmMail); f.AlarmMail != "" && (!a.IsValid() || strings.ContainsAny(f.AlarmMail, "\r\n<>")) {
		errs = append(errs, s.Errorf("alarm-mail", "%q is no address", f.AlarmMail))
	}
	if _, err := f.smtpServer(); err != nil {
		errs = append(errs, s.Errorf("alarm-smtp", "%w", err))
	}
	return errors.Join(errs...)
}

// smtpServer returns the address of the SMTP server for mails.
func (f *alarmFlags) smtpServer() (string, error) {
	server, ok := strings.CutPrefix(f.AlarmSMTP, "inet:")
	if _, _, err := net.SplitHostPort(server); !ok || err != nil {
		return "", fmt.Errorf("%q is no endpoint: write inet:127.0.0.1:25", f.AlarmSMTP)
	}
	return server, nil
}

// exempt returns the recipient of this daemon's own mails, in the form of checks.Limit.
func (f *alarmFlags) exempt() string {
	if f.AlarmMail == "" {
		return ""
	}
	return checks.AlarmAddress(f.AlarmMail)
}

// alarmsKey is the settings from which an alarms is made.
type alarmsKey struct{ command, mail, smtp string }

// open returns the alarms for these settings. It never blocks a request, and is kept
// over reloads.
func (f *alarmFlags) open(n *needs) (*alarms, error) {
	if f.AlarmCommand == "" && f.AlarmMail == "" {
		return nil, nil
	}
	if f.AlarmCommand != "" {
		info, err := os.Stat(f.AlarmCommand)
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return nil, n.set.Errorf("alarm-command", "%s is no program that can be run: %w", f.AlarmCommand, errors.Join(err, os.ErrPermission))
		}
	}
	var err error
	f.passed, err = service.Keep(n.life, alarmsKey{f.AlarmCommand, f.AlarmMail, f.AlarmSMTP}, func() (service.Opened[*alarms], error) {
		server, err := f.smtpServer()
		a := &alarms{command: f.AlarmCommand, mail: f.AlarmMail, server: server, log: n.Log, queue: make(chan limit.Alarm, maxAlarms)}
		return service.Opened[*alarms]{Value: a, Work: a.work}, err
	})
	return f.passed, err
}

// alarms passes alarms to the command and by mail, one at a time, outside of requests.
type alarms struct {
	command, mail, server string
	log                   *zap.Logger
	queue                 chan limit.Alarm
	misses                atomic.Uint64
}

// pass queues an alarm and does not wait. If the queue is full, the alarm is dropped
// and counted; its record is in the log anyway.
func (a *alarms) pass(alarm limit.Alarm) {
	if a == nil {
		return
	}
	select {
	case a.queue <- alarm:
	default:
		a.misses.Add(1)
	}
}

func (a *alarms) missed() uint64 {
	if a == nil {
		return 0
	}
	return a.misses.Load()
}

// work passes alarms on until ctx ends.
func (a *alarms) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case alarm := <-a.queue:
			a.report("alarm-command", a.run(ctx, &alarm))
			a.report("alarm-mail", a.send(ctx, &alarm))
		}
	}
}

func (a *alarms) report(setting string, err error) {
	if err != nil {
		a.misses.Add(1)
		a.log.Error("an alarm could not be passed on; correct "+setting, zap.Error(err))
	}
}

// run runs the command. If it takes too long, run ends it and all processes that it has
// started.
func (a *alarms) run(ctx context.Context, alarm *limit.Alarm) error {
	if a.command == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, alarmTimeout)
	defer cancel()
	input, err := json.Marshal(alarmJSON(alarm))
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, a.command)
	cmd.Stdin = bytes.NewReader(append(input, '\n'))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", a.command, errors.Join(err, ctx.Err()), bytes.TrimSpace(output))
	}
	return nil
}

// tail keeps the first octets that are written.
type tail []byte

func (t *tail) Write(b []byte) (int, error) {
	*t = append(*t, b[:min(len(b), maxAlarmOutput-len(*t))]...)
	return len(b), nil
}

// send sends a mail with the null sender, so that it cannot bounce.
func (a *alarms) send(ctx context.Context, alarm *limit.Alarm) (err error) {
	if a.mail == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, alarmTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.server)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // needed when QUIT was not reached
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	c, err := smtp.NewClient(conn, hostname)
	if err != nil {
		return err
	}
	if err := errors.Join(c.Hello(hostname), c.Mail(""), c.Rcpt(a.mail)); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(alarmMail(alarm, hostname, a.mail)); err != nil {
		return err
	}
	return errors.Join(w.Close(), c.Quit())
}

// alarmFields is an alarm in the form for programs.
type alarmFields struct {
	Time     string   `json:"ts"`
	Limit    string   `json:"limit"`
	Key      string   `json:"key"`
	Value    string   `json:"value"`
	Unit     string   `json:"unit"`
	Percent  int      `json:"percent"`
	Used     int64    `json:"used"`
	Count    int64    `json:"count"`
	Window   int      `json:"window_s"`
	Wait     int      `json:"wait_s"`
	Action   string   `json:"action"`
	Mode     string   `json:"mode"`
	Networks []string `json:"networks,omitempty"`
	Domains  []string `json:"recipient_domains,omitempty"`
}

func alarmJSON(a *limit.Alarm) alarmFields {
	mode := "enforce"
	if a.Watched && a.Rule.Action.Refuses() {
		mode = "shadow"
	}
	return alarmFields{
		Time: a.Time.UTC().Format(time.RFC3339Nano), Limit: a.Rule.String(), Key: string(a.Rule.Key), Value: a.Value, Unit: string(a.Rule.Unit),
		Percent: a.Percent, Used: a.Used, Count: a.Rule.Count, Window: int(a.Rule.Window / time.Second),
		Wait: int((a.Wait + time.Second - 1) / time.Second), Action: string(a.Rule.Action), Mode: mode,
		Networks: a.Networks, Domains: a.Domains,
	}
}

// writeAlarm writes the one record of an alarm.
func writeAlarm(log *zap.Logger, a *limit.Alarm) {
	f := alarmJSON(a)
	log.Warn("alarm", zap.String("daemon", daemonName), zap.String("check", checks.LimitName), zap.String("limit", f.Limit), zap.String("key", f.Key),
		zap.String("value", f.Value), zap.String("unit", f.Unit), zap.Int("percent", f.Percent), zap.Int64("used", f.Used), zap.Int64("count", f.Count),
		zap.Int("window_s", f.Window), zap.Int("wait_s", f.Wait), zap.String("action", f.Action), zap.String("mode", f.Mode),
		zap.Strings("networks", f.Networks), zap.Strings("recipient_domains", f.Domains))
}

// alarmMail returns the mail about an alarm.
func alarmMail(a *limit.Alarm, hostname, to string) []byte {
	f := alarmJSON(a)
	var b bytes.Buffer
	line := func(format string, args ...any) {
		b.WriteString(oneLine(fmt.Sprintf(format, args...)) + "\r\n")
	}
	line("From: postern <postern@%s>", hostname)
	line("To: %s", to)
	line("Subject: %s", mime.QEncoding.Encode("utf-8", oneLine(fmt.Sprintf("limit at %d %%: %s %s", f.Percent, f.Key, f.Value))))
	line("Date: %s", a.Time.Format(time.RFC1123Z))
	line("Message-ID: <%d.%d@%s>", a.Time.UnixNano(), os.Getpid(), hostname)
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: text/plain; charset=utf-8")
	b.WriteString("\r\n")
	line("%s %s has used %d of %d %s.", f.Key, f.Value, f.Used, f.Count, f.Unit)
	line("limit     %s (%s, %s)", f.Limit, f.Action, f.Mode)
	if a.Wait > 0 {
		line("room in   %s", a.Wait.Round(time.Second))
	}
	line("networks  %s", strings.Join(f.Networks, " "))
	line("to        %s", strings.Join(f.Domains, " "))
	b.WriteString("\r\n")
	if a.Rule.Key == limit.Login {
		line("postern limits show %s", f.Value)
		line("postern limits block %s", f.Value)
	}
	return b.Bytes()
}

// oneLine replaces line ends in a text, because a client chose the text.
func oneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, text)
}
