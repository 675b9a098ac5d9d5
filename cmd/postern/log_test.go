package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

// logOf makes records, a second apart, from the members of their JSON.
func logOf(members ...string) []string {
	var lines []string
	for i, m := range members {
		lines = append(lines, fmt.Sprintf(`{"level":"info","ts":"2026-11-21T02:00:0%d.007Z","msg":"decision",%s,"duration_ms":1.25}`, i, m))
	}
	return lines
}

const ofMail = `"client_address":"192.0.2.7","client_port":"4711","client_name":"mx.x.example","helo":"mx.x.example","sender":"ann@x.example"`

var (
	policydLines = logOf(
		`"daemon":"policyd","check":"greylist","verdict":"defer","reason":"greylist_new","action":"DEFER_IF_PERMIT 4.2.0 Greylisted","mode":"enforce","instance":"a",`+ofMail+`,"recipient":"bob@y.example","steps":[{"check":"greylist","verdict":"defer","reason":"greylist_new","detail":"key=192.0.2.0/24"}]`,
		`"daemon":"policyd","check":"greylist","verdict":"pass","reason":"greylist_known","action":"DUNNO","mode":"enforce","instance":"a","queue_id":"Q1",`+ofMail+`,"recipient":"eve\u001b[2J@y.example"`,
		`"daemon":"policyd","check":"ownership","verdict":"reject","reason":"not_owned","action":"553 5.7.1 not owned","mode":"shadow","instance":"b","client_address":"198.51.100.9","client_port":"1","sender":"pr@y.example","recipient":"eve@z.example","sasl_username":"bob"`,
	)
	milterdLines = logOf(
		`"daemon":"milterd"`, // of a connection
		`"daemon":"milterd","check":"verify","verdict":"pass","reason":"verified","action":"accept","mode":"enforce","queue_id":"Q1",`+ofMail+`,"message_id":"<1@x.example>","whose":"none_of_these","spf":"pass","dkim":"none"`,
	)
)

// logFile is a log with noise in it.
func logFile(t *testing.T, name string, lines []string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("postern-policyd: started\n"+strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func utc(t *testing.T) {
	t.Helper()
	before := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = before })
}

func TestLogJoinsMails(t *testing.T) {
	utc(t)
	policyd, milterd := logFile(t, "policyd", policydLines), logFile(t, "milterd", milterdLines[1:])
	code, out, stderr := postern(t, "log", policyd, milterd)
	want := `2026-11-21 02:00:00Z  ann@x.example -> bob@y.example, eve\x1b[2J@y.example
  client=mx.x.example[192.0.2.7]:4711 helo=mx.x.example queue=Q1 message-id=<1@x.example>
  02:00:00.007  policyd greylist defer greylist_new recipient=bob@y.example reply=DEFER_IF_PERMIT 4.2.0 Greylisted 1.2ms
      greylist: defer greylist_new  key=192.0.2.0/24
  02:00:01.007  policyd greylist pass greylist_known recipient=eve\x1b[2J@y.example reply=DUNNO 1.2ms
  02:00:01.007  milterd verify pass verified whose=none_of_these spf=pass dkim=none reply=accept 1.2ms
2026-11-21 02:00:02Z  pr@y.example -> eve@z.example
  client=198.51.100.9:1 login=bob
  02:00:02.007  policyd ownership reject not_owned (shadow) recipient=eve@z.example reply=553 5.7.1 not owned 1.2ms
`
	if code != exitYes || stderr != "" || out != want {
		t.Errorf("exit %d, %s\ngot\n%s\nwant\n%s", code, stderr, out, want)
	}
}

func TestLogForms(t *testing.T) {
	utc(t)
	file := logFile(t, "both", append(policydLines, milterdLines[1]))
	t.Run("filtered", func(t *testing.T) {
		code, out, _ := postern(t, "log", "--login", "bob", file)
		if code != exitYes || strings.Contains(out, "ann@x.example") || !strings.Contains(out, "login=bob") {
			t.Errorf("exit %d, %s", code, out)
		}
	})
	t.Run("nothing matches", func(t *testing.T) {
		if code, out, stderr := postern(t, "log", "--recipient", "nobody@y.example", file); code != exitNo || out != "" || stderr != "" {
			t.Errorf("exit %d, %q, %q", code, out, stderr)
		}
	})
	t.Run("json", func(t *testing.T) {
		_, out, _ := postern(t, "log", "--json", "--recipient", "bob@y.example", file)
		var mail struct {
			QueueID    string            `json:"queue_id"`
			Recipients []string          `json:"recipients"`
			Records    []json.RawMessage `json:"records"`
		}
		if err := json.Unmarshal([]byte(out), &mail); err != nil || mail.QueueID != "Q1" || len(mail.Recipients) != 2 || len(mail.Records) != 3 || string(mail.Records[0]) != policydLines[0] {
			t.Errorf("%v in %s", err, out)
		}
	})
	t.Run("flat json", func(t *testing.T) {
		if _, out, _ := postern(t, "log", "--json", "--flat", "--reason", "greylist_*", file); out != policydLines[0]+"\n"+policydLines[1]+"\n" {
			t.Errorf("got %s", out)
		}
	})
	t.Run("flat", func(t *testing.T) {
		_, out, _ := postern(t, "log", "--flat", "--verdict", "reject", file)
		if out != "2026-11-21 02:00:02Z ownership reject not_owned (shadow) client=198.51.100.9 login=bob sender=pr@y.example recipient=eve@z.example reply=553 5.7.1 not owned\n" {
			t.Errorf("got %s", out)
		}
	})
	t.Run("colored", func(t *testing.T) {
		if _, out, _ := postern(t, "log", "--flat", "--color=always", "--verdict", "defer", file); !strings.Contains(out, "greylist \x1b[33mdefer\x1b[0m greylist_new") {
			t.Errorf("got %q", out)
		}
	})
	t.Run("summary", func(t *testing.T) {
		code, out, _ := postern(t, "log", "--summary", file)
		for _, want := range []string{"2 mails, 4 records", "1  greylist defer greylist_new", "1  ownership reject not_owned (shadow)", "1  ann@x.example", "1  mx.x.example[192.0.2.7]", "replies of milterd: 1.25 ms"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
		if code != exitYes {
			t.Errorf("exit %d", code)
		}
	})
	t.Run("summary as json", func(t *testing.T) {
		_, out, _ := postern(t, "log", "--summary", "--json", "--login", "bob", file)
		var s struct{ Mails, Records int }
		if err := json.Unmarshal([]byte(out), &s); err != nil || s.Mails != 1 || s.Records != 1 {
			t.Errorf("%v in %s", err, out)
		}
	})
	t.Run("no record at all", func(t *testing.T) {
		empty := logFile(t, "console", []string{"2026-11-21T02:00:00.007Z info ownership reject not_owned decision"})
		if code, out, stderr := postern(t, "log", empty); code != exitNo || out != "" || !strings.Contains(stderr, `none of 2 lines is a record; the daemons must log with log-format = "json"`) {
			t.Errorf("exit %d, %q, %q", code, out, stderr)
		}
	})
}

func TestLogMistakes(t *testing.T) {
	for want, args := range map[string][]string{
		"--since: \"soon\" is no time; write 2h": {"--since", "soon"},
		"--until: ":                              {"--until", "x"},
		"verdict \"no\": write one of pass":      {"--verdict", "no"},
		"reads the journal and no file":          {"--journal", "file"},
		"leave out --follow":                     {"--summary", "--follow"},
		"--until ends before":                    {"--follow", "--until", "1h"},
		"--color \"red\": write auto":            {"--color", "red"},
		"--top is how many":                      {"--top", "-1"},
		"open /nonexistent: no such file":        {"/nonexistent"},
		"name the files of the log":              {"--policyd", "/nonexistent/p.sock"},
		"milterd running? --milterd names its":   {"--policyd", "/nonexistent/p.sock", "--milterd", "/nonexistent/m.sock"},
		"policyd running? --policyd names its":   {"--policyd", "/nonexistent/p.sock"},
	} {
		code, out, stderr := postern(t, append([]string{"log"}, args...)...)
		if code != exitFailed || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
		}
	}
}

// remembering is a daemon's memory of records, in lines of progress.
func remembering(t *testing.T, daemon string, lines []string) (path string) {
	return serveCommands(t, daemon, map[string]admin.Handler{
		api.Log: admin.Typed(func(_ context.Context, _ api.LogArgs, progress func(any)) (any, error) {
			for _, line := range lines {
				progress(api.LogLines{json.RawMessage(line)})
			}
			return api.LogResult{Run: "r", Next: uint64(len(lines))}, nil
		}),
	})
}

func TestLogOfMemories(t *testing.T) {
	utc(t)
	policyd, milterd := remembering(t, api.Policyd, policydLines), remembering(t, api.Milterd, milterdLines)
	code, out, stderr := postern(t, "log", "--policyd", "unix:"+policyd, "--milterd", "unix:"+milterd, "--recipient", "bob@y.example")
	if code != exitYes || stderr != "" || strings.Count(out, "policyd") != 2 || strings.Count(out, "milterd") != 1 {
		t.Errorf("exit %d, %s, %s", code, stderr, out)
	}
	code, out, stderr = postern(t, "log", "--policyd", policyd, "--milterd", "/nonexistent/m.sock")
	if code != exitYes || !strings.Contains(stderr, "is postern-milterd running?") || strings.Contains(out, "milterd") {
		t.Errorf("with one of them down: exit %d, %s, %s", code, stderr, out)
	}
	if code, out, stderr = postern(t, "log", "--policyd", policyd, "--recipient", "no@y.example"); code != exitNo || out != "" || stderr != "postern-policyd remembers what it has decided since 2026-11-21 02:00:00Z; for older records name the files of the log, or use --journal\n" {
		t.Errorf("nothing: exit %d, %s, %s", code, stderr, out)
	}
	if code, _, stderr = postern(t, "log", "--policyd", policyd, "--since", "2026-11-20"); code != exitYes || !strings.Contains(stderr, "since 2026-11-21 02:00:00Z; for older") {
		t.Errorf("before the first record: exit %d, %s", code, stderr)
	}
	if code, _, stderr = postern(t, "log", "--policyd", remembering(t, api.Policyd, nil)); code != exitNo || stderr != "postern-policyd has decided nothing since it was started\n" {
		t.Errorf("an empty memory: exit %d, %s", code, stderr)
	}
	if code, out, stderr = postern(t, "log", "--milterd", milterd); code != exitYes || stderr != "" || strings.Contains(out, "policyd") {
		t.Errorf("only one: exit %d, %s, %s", code, stderr, out)
	}
	if code, _, stderr = postern(t, "log", "--milterd", serveCommands(t, api.Milterd, nil)); code != exitFailed || !strings.Contains(stderr, "older release and remembers no records; restart it (postern restart milterd)") {
		t.Errorf("an older daemon: exit %d, %s", code, stderr)
	}
}

// followed runs the command until a line comes that it waits for.
func followed(t *testing.T, until string, args ...string) (out, errs string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var o, e bytes.Buffer
	w := &watched{Writer: &o, until: until, seen: cancel}
	if code := run(ctx, append([]string{"log", "--follow"}, args...), streams{w, &e}); code != exitYes {
		t.Errorf("exit %d, %s", code, &e)
	}
	return o.String(), e.String()
}

// watched calls seen when a text is written.
type watched struct {
	io.Writer
	until string
	seen  func()
}

func (w *watched) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.until)) {
		w.seen()
	}
	return w.Writer.Write(p)
}

// A daemon is asked for what is new, with what it said last, also after it was
// replaced.
func TestLogFollowsMemories(t *testing.T) {
	var mu sync.Mutex
	var asked []api.LogArgs
	answers := [][]string{policydLines[:1], policydLines[1:2], policydLines[2:]}
	path := serveCommands(t, api.Policyd, map[string]admin.Handler{
		api.Log: admin.Typed(func(ctx context.Context, args api.LogArgs, progress func(any)) (any, error) {
			mu.Lock()
			n := len(asked)
			asked = append(asked, args)
			mu.Unlock()
			if n >= len(answers) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			for _, line := range answers[n] {
				progress(api.LogLines{json.RawMessage(line)})
			}
			return api.LogResult{Run: "r", Next: uint64(n + 1)}, nil
		}),
	})
	out, errs := followed(t, "not_owned", "--since", "2026-11-21T00:00:00Z", "--policyd", path)
	if errs != "" || strings.Count(out, "policyd greylist") != 2 || strings.Count(out, "ann@x.example -> ") != 1 {
		t.Errorf("%s, %s", errs, out)
	}
	want := []api.LogArgs{{}, {After: 1, Run: "r", Wait: true}, {After: 2, Run: "r", Wait: true}}
	mu.Lock()
	defer mu.Unlock()
	for i, w := range want {
		if asked[i] != w {
			t.Errorf("question %d: %+v, want %+v", i, asked[i], w)
		}
	}
}

func TestLogFollowsFiles(t *testing.T) {
	policyd, milterd := logFile(t, "policyd", policydLines), logFile(t, "milterd", milterdLines)
	out, errs := followed(t, "not_owned", "--since", "2026-11-21T00:00:00Z", policyd, milterd)
	if errs != "" || strings.Count(out, "milterd verify") != 1 {
		t.Errorf("%s, %s", errs, out)
	}
}

// The journal is read by journalctl, whose trouble is told.
func TestLogOfTheJournal(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	journalctl := func(script string) {
		if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	journalctl("echo \"$*\" >" + dir + "/args; cat " + logFile(t, "journal", policydLines))
	code, out, stderr := postern(t, "log", "--journal", "--since", "2026-11-21T00:00:00Z", "--until", "2026-11-22T00:00:00Z", "--login", "bob")
	args, err := os.ReadFile(filepath.Join(dir, "args"))
	if err != nil || string(args) != "-o cat --all --quiet -u postern-policyd -u postern-milterd --since=@1795219200 --until=@1795305601\n" {
		t.Errorf("asked %q, %v", args, err)
	}
	if code != exitYes || stderr != "" || !strings.Contains(out, "not_owned") {
		t.Errorf("exit %d, %s, %s", code, stderr, out)
	}
	out, _ = followed(t, "not_owned", "--journal", "--since", "2026-11-21T00:00:00Z")
	if args, err = os.ReadFile(filepath.Join(dir, "args")); err != nil || !strings.HasSuffix(string(args), " -n all -f\n") || strings.Count(out, "policyd greylist") != 2 {
		t.Errorf("asked %q, %v; got %s", args, err, out)
	}
	journalctl("echo 'No journal files were opened' >&2; exit 1")
	if code, _, stderr = postern(t, "log", "--journal"); code != exitFailed || !strings.Contains(stderr, "No journal files were opened") || !strings.Contains(stderr, "run as root, or as a member of the group systemd-journal") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
