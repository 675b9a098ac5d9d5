package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

// TestLog joins what both daemons remember of the mails of one session, and explains
// a deferral without leaving a trace of the question.
func TestLog(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{Signing: true, Policyd: []string{"--checks=ownership,greylist"}, Postfix: askGreylist})
	c := open(t, s, Alice)
	for _, to := range []string{Bob, Dora} {
		if got := transact(t, c, As(Alice, Press, to)); !got.OK() {
			t.Fatal(got)
		}
		if _, err := s.Record(t.Context(), As(Alice, Press, to)); err != nil {
			t.Fatal(err)
		}
	}
	sockets := []string{"--policyd", "unix:" + filepath.Join(s.Dir, "policyd.sock"), "--milterd", "unix:" + filepath.Join(s.Dir, "milterd.sock")}
	out, err := s.Postern(t.Context(), append([]string{"log", "--json", "--login", Alice}, sockets...)...)
	if err != nil {
		t.Fatal(err)
	}
	var queued []string
	for line := range strings.Lines(out) {
		var mail struct {
			QueueID    string   `json:"queue_id"`
			Recipients []string `json:"recipients"`
			Records    []postfixtest.Record
		}
		if err := json.Unmarshal([]byte(line), &mail); err != nil {
			t.Fatal(err)
		}
		if len(mail.Records) != 2 || mail.Records[0].Reason != string(record.OwnerOwned) || mail.Records[1].Reason != string(record.Signed) || mail.QueueID == "" {
			t.Errorf("not joined: %s", line)
		}
		queued = append(queued, mail.QueueID+" "+strings.Join(mail.Recipients, " "))
	}
	if len(queued) != 2 || !strings.HasSuffix(queued[0], Bob) || !strings.HasSuffix(queued[1], Dora) {
		t.Errorf("mails %q", queued)
	}

	ask := []string{"explain", "policy", "--admin", sockets[1], "--json", "--context", "greylist", "--client", "192.0.2.7", "--sender", "new@away.example", "--recipient", Alice}
	for range 2 {
		explained(t, s, record.GreylistNew, ask...) // the first question is not remembered
	}
	deferred := client("192.0.2.7", "", "new@away.example", Alice)
	expect(t, s, postfixtest.MX, deferred, 450)
	if _, err := s.Record(t.Context(), deferred); err != nil {
		t.Fatal(err)
	}
	explained(t, s, record.GreylistEarly, ask...)
	// The record of the deferral asks the same.
	line, err := s.Postern(t.Context(), append([]string{"log", "--json", "--flat", "--reason", "greylist_new"}, sockets[:2]...)...)
	if err != nil || strings.Count(line, "\n") != 1 {
		t.Fatalf("%q, %v", line, err)
	}
	replayed(t, s)
}

// replayed plays the records and Postfix's own log again.
func replayed(t *testing.T, s *Site) {
	t.Helper()
	var lines strings.Builder
	for _, r := range s.Policyd.Records() {
		lines.WriteString(r.Raw + "\n")
	}
	// Postfix's log is written by a process of its own.
	if _, err := s.Postfix.WaitLog(t.Context(), func(line string) bool { return strings.Contains(line, "Greylisted") }); err != nil {
		t.Fatal(err)
	}
	records, maillog := filepath.Join(s.Dir, "records"), filepath.Join(s.Dir, "maillog")
	ofPostfix, err := s.Postfix.Log()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{records: lines.String(), maillog: strings.Join(ofPostfix, "\n")} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ file, flag, want string }{
		{records, "--greylist-delay=3m", "no mail would have got another answer"},
		{records, "--greylist-allow-clients=" + s.file(t, "clients", "192.0.2.7\n"), "greylist_new -> greylist_client_allowed"},
		{maillog, "--greylist-delay=2m", "answers \"come back later\"     1    1\n"},
	} {
		out, err := s.Postern(t.Context(), "replay", "--config", filepath.Join(s.Dir, "policyd.toml"), tt.flag, tt.file)
		if err != nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: want %q in %s, %v", tt.flag, tt.want, out, err)
		}
	}
}

// file writes a file of the site.
func (s *Site) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// explained asks for an explanation of a mail that is not taken.
func explained(t *testing.T, s *Site, want record.Reason, args ...string) {
	t.Helper()
	out, err := s.Postern(t.Context(), args...)
	if err == nil {
		t.Errorf("the mail would pass: %s", out)
	}
	if !strings.Contains(out, `"reason": "`+string(want)+`"`) {
		t.Errorf("want %s, got %s", want, out)
	}
}
