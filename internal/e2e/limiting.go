package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// Limited is a second submission service of the site. Its hooks ask the ownership and
// limit checks.
const Limited = "limited"

// limitShown is the number of recipients that a login may have there in an hour.
const limitShown = 5

// WithLimits adds the service Limited to the site.
func WithLimits(c SiteConfig) SiteConfig {
	c.Policyd = slices.Concat(c.Policyd, []string{"--limit", fmt.Sprintf("login.recipients=%d/1h", limitShown), "--limit-store=memory:"})
	before := c.Postfix
	c.Postfix = func(p *postfixtest.Config) {
		endpoint := submissionEndpoint(p)
		p.More = append(p.More, postfixtest.Service{Name: Limited, Login: true, Options: LimitHooks(endpoint)})
		if before != nil {
			before(p)
		}
	}
	return c
}

// submissionEndpoint returns the endpoint of the submission hook.
func submissionEndpoint(c *postfixtest.Config) string {
	return strings.TrimSuffix(strings.Fields(c.Submission[0])[2], ",")
}

// LimitHooks returns the options of a submission service that asks for limits, as in
// policy/LIMITS.md.
func LimitHooks(endpoint string) []string {
	return []string{
		"smtpd_sender_restrictions=" + CheckPolicy(endpoint, "{ policy_context = ownership, limit }"),
		"smtpd_end_of_data_restrictions=" + CheckPolicy(endpoint, "policy_context=limit"),
	}
}

// Shown is an action and its result.
type Shown struct{ Name, Answer, Why string }

// LimitStory makes Bob's account send too much, lifts the limit, and blocks him. wrong
// is what was not as expected.
func LimitStory(ctx context.Context, s *Site) (shown []Shown, wrong, err error) {
	story := limitStory{ctx: ctx, site: s}
	for i := range limitShown {
		story.send(fmt.Sprintf("bob's account sends mail %d", i+1), 250)
	}
	story.send("and one more", 450)
	story.alarm()
	story.command("what bob has used", "used 5", "limits", "show", Bob)
	story.command("the limit is lifted", "1 counts", "limits", "reset", Bob)
	story.send("bob sends again", 250)
	story.command("the account is blocked", "is blocked since", "limits", "block", Bob, "12h")
	story.send("and sends nothing", 554)
	story.command("the block is lifted", "may send mail again", "limits", "unblock", Bob)
	story.send("bob sends again", 250)
	return story.shown, errors.Join(story.wrong...), story.err
}

type limitStory struct {
	ctx   context.Context
	site  *Site
	shown []Shown
	wrong []error
	err   error // of the site itself; nothing is done after it
}

func (l *limitStory) add(name, answer, why string, ok bool) {
	if !ok {
		l.wrong = append(l.wrong, fmt.Errorf("%s: %s", name, answer))
		why += " (NOT AS EXPECTED)"
	}
	l.shown = append(l.shown, Shown{name, answer, why})
}

func (l *limitStory) send(name string, code int) {
	if l.err != nil {
		return
	}
	result, err := l.site.Postfix.Send(l.ctx, Limited, As(Bob, Bob, Stranger))
	if err != nil {
		l.err = err
		return
	}
	records := 1
	if result.Final().OK() {
		records = 2 // of the recipient, and of the end of the mail
	}
	var record postfixtest.Record
	for range records {
		record, err = l.site.Policyd.WaitRecord(l.ctx, func(r postfixtest.Record) bool { return r.SASLUsername == Bob })
		l.err = errors.Join(l.err, err)
	}
	reason, detail := record.Why()
	l.add(name, result.Final().String(), strings.TrimSpace(reason+" "+detail), result.Final().Code == code)
}

// alarm shows the log line about the limit.
func (l *limitStory) alarm() {
	if l.err != nil {
		return
	}
	line, err := l.site.Policyd.WaitLine(l.ctx, func(r postfixtest.Record) bool {
		return r.Message == "alarm" && strings.Contains(r.Raw, `"percent":100`)
	})
	if l.err = err; err == nil {
		l.add("the alarm, in the log", strings.TrimSpace(line.Raw), "", true)
	}
}

func (l *limitStory) command(name, want string, args ...string) {
	if l.err != nil {
		return
	}
	out, err := l.site.Postern(l.ctx, append(args, "--admin", "unix:"+filepath.Join(l.site.Dir, "policyd.sock"))...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = nil // the answer is no
	}
	l.err = err
	lines := strings.FieldsFunc(out, func(c rune) bool { return c == '\n' })
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ")
	}
	l.add(name, "postern "+strings.Join(args, " "), strings.Join(lines, "; "), strings.Contains(strings.Join(lines, "; "), want))
}
