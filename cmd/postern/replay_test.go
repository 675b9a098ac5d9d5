package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/replay"
)

// greylistLog is a mail that was taken at its second try, after five minutes, and one
// that never came back.
func greylistLog(t *testing.T) string {
	const mail = `"daemon":"policyd","check":"greylist","mode":"enforce","client_address":"198.51.100.7","sender":"ann@x.example","recipient":%q,"verdict":%q,"reason":%q,"action":%q,"duration_ms":1,"steps":[{"check":"greylist","verdict":%q,"reason":%q,"detail":%q}]`
	at := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	var lines []string
	for _, r := range []struct {
		after                               time.Duration
		to, verdict, reason, action, detail string
	}{
		{0, "bob@y.example", "defer", "greylist_new", "DEFER_IF_PERMIT 4.2.0 Greylisted, please try again in 180 seconds", ""},
		{time.Minute, "eve@y.example", "defer", "greylist_new", "DEFER_IF_PERMIT 4.2.0 Greylisted, please try again in 180 seconds", ""},
		{150 * time.Second, "bob@y.example", "defer", "greylist_early", "DEFER_IF_PERMIT 4.2.0 Greylisted, please try again in 30 seconds", ""},
		{300 * time.Second, "bob@y.example", "pass", "greylist_waited", "DUNNO", " waited=300s"},
	} {
		detail := "key=198.51.100.0/24 sender=ann@x.example spf=none" + r.detail
		lines = append(lines, fmt.Sprintf(`{"level":"info","ts":%q,"msg":"decision",`+mail+"}", at.Add(r.after).Format(time.RFC3339Nano), r.to, r.verdict, r.reason, r.action, r.verdict, r.reason, detail))
	}
	return logFile(t, "records", lines)
}

func TestReplay(t *testing.T) {
	utc(t)
	file := greylistLog(t)
	code, out, stderr := postern(t, "replay", "--config=", "--greylist-delay", "120s", file)
	want := `2026-11-21 01:59:59Z to 2026-11-21 02:04:59Z: 4 requests

greylist, asked about 4
                              WAS   WOULD BE
answers "come back later"     3     2
senders who got them          1     1
mails delayed                 1     1
  half of them at most        5m0s  2m30s
  90 % of them at most        5m0s  2m30s
  longest                     5m0s  2m30s
mails that did not come back  1     1

answers that would have been different: 1
2026-11-21 02:02:29Z  198.51.100.7  ann@x.example -> bob@y.example  greylist_early -> greylist_waited
`
	if code != exitYes || stderr != "" || out != want {
		t.Errorf("exit %d, %s, got\n%s\nwant\n%s", code, stderr, out, want)
	}
	if _, out, _ = postern(t, "replay", "--config=", file); !strings.Contains(out, "\nno mail would have got another answer\n") {
		t.Errorf("unchanged: %s", out)
	}
	_, out, _ = postern(t, "replay", "--config=", "--greylist-delay=10m", file)
	for _, want := range []string{"1 (1 of them at least as long as shown)", "greylist_waited -> greylist_early (wait 5m0s)"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	_, out, _ = postern(t, "replay", "--config=", "--since", "2026-11-21T02:01:30Z", "--json", "--greylist-delay=2m", file)
	var r replay.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Questions != 2 || r.Before != 0 || r.Misfits != 0 || r.Greylist.Would.Deferred != 0 || r.Differ != 1 {
		t.Errorf("%v in %s", err, out)
	}
}

func TestReplayOfPostfixsLog(t *testing.T) {
	file := logFile(t, "mail.log", []string{
		"Nov 21 01:06:00 mx postfix/smtpd[11]: 4TzXy01abc: client=mx.x.example[198.51.100.7]",
		"Nov 21 01:06:01 mx postfix/qmgr[13]: 4TzXy01abc: from=<ann@x.example>, size=1, nrcpt=1 (queue active)",
		"Nov 21 01:06:02 mx postfix/lmtp[14]: 4TzXy01abc: to=<bob@y.example>, relay=none, delay=2, dsn=2.0.0, status=sent (250 ok)",
	})
	code, out, stderr := postern(t, "replay", "--config=", file)
	if code != exitYes || stderr != "" || !strings.Contains(out, "accepted -> greylist_new (wait 3m0s)") || !strings.Contains(out, "Postfix's log holds no SPF") {
		t.Errorf("exit %d, %s, %s", code, stderr, out)
	}
}

func TestReplayOfLimits(t *testing.T) {
	utc(t)
	var lines []string
	for i, to := range []string{"a", "b", "c"} {
		lines = append(lines, fmt.Sprintf(`{"level":"info","ts":"2026-11-21T02:00:0%d.001Z","msg":"decision","daemon":"policyd","check":"ownership","verdict":"pass","reason":"owned","mode":"enforce","instance":"i%d","client_address":"198.51.100.7","sasl_username":"bob","sender":"bob@y.example","recipient":"%s@x.example","duration_ms":1,"steps":[{"check":"ownership","verdict":"pass","reason":"owned"}]}`, i, i/2, to))
	}
	file := logFile(t, "records", lines)
	code, out, stderr := postern(t, "replay", "--config=", "--limit", "login.recipients=2/1h", file)
	for _, want := range []string{
		"\nlimits, asked about 3 recipients: refused 0; would refuse 1, of 1 mails\n  login.recipients=2/1h  bob  1 recipients  from 2026-11-21 02:00:02Z on\n",
		"bob@y.example -> c@x.example  owned -> limit_recipients login=bob\n", "what had been sent before the first record is not known",
	} {
		if code != exitYes || stderr != "" || !strings.Contains(out, want) {
			t.Errorf("exit %d, %s, no %q in %s", code, stderr, want, out)
		}
	}
	if _, out, _ = postern(t, "replay", "--config=", "--limit", "login.bytes=1000/1h", file); !strings.Contains(out, "the sizes of mails are not recorded; limits of bytes are left out") {
		t.Errorf("bytes: %s", out)
	}
}

func TestReplayMistakes(t *testing.T) {
	file := greylistLog(t)
	for want, args := range map[string][]string{
		"usage: postern replay [flags] FILE...":             {},
		"--greylist-delay":                                  {"--config=", "--greylist-delay=soon", file},
		"--greylist-allow-clients: open /nonexistent":       {"--config=", "--greylist-allow-clients=/nonexistent", file},
		"/nonexistent.toml":                                 {"--config=/nonexistent.toml", file},
		"open /nonexistent: no such file":                   {"--config=", "/nonexistent"},
		"--limit: ":                                         {"--config=", "--limit=10 a day", file},
		"--since: \"soon\" is no time":                      {"--config=", "--since=soon", file},
		"--show is how many":                                {"--config=", "--show=-1", file},
		"there is nothing to replay; name logs that have r": {"--config=", logFile(t, "empty", nil)},
	} {
		code, out, stderr := postern(t, append([]string{"replay"}, args...)...)
		if code != exitFailed || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
		}
	}
}
