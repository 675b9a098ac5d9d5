package policyd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/store/redistest"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

func TestLimitSettings(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args  []string
		wrong string // "" is right
	}{
		{[]string{"--limit=login=300/1h", "--limit=login=1000/1d", "--limit=login.networks=20/1h", "--limit-action=login.networks=warn"}, ""},
		{[]string{"--limit=login=10/0s"}, `--limit: "login=10/0s": the window "0s" is out of bounds`},
		{[]string{"--limit=login=5/1h", "--limit=login=-1/1h"}, `the count "-1" is out of bounds`},
		{[]string{"--limit=login=5/1d", "--limit=login=5/1h"}, "login.recipients=5/1h can never be reached beside login.recipients=5/1d"},
		{[]string{"--limit=login=5/1d", "--limit-action=drop"}, `--limit-action: "drop" is none of defer, reject, hold, warn`},
		{[]string{"--limit=login=5/1d", "--limit-action=user=warn"}, `"user" is none of the keys`},
		{[]string{"--limit=login=5/1d", "--limit-store=postgres:x"}, "--limit-store: "},
		{[]string{"--limit=login=5/1d", "--limit-store=memory:", "--limit-password-file=x"}, "limit-password-file is for Redis"},
		{[]string{"--limit=login=5/1d", "--limit-trusted-networks=10.0.0.1/8"}, "bits set behind its mask"},
		{[]string{"--limit=login=5/1d", "--limit-url=example"}, "--limit-url: "},
		{[]string{"--limit=login=5/1d", "--alarm-command=alarm"}, "--alarm-command: \"alarm\" is relative"},
		{[]string{"--limit=login=5/1d", "--alarm-command=" + plain}, "is no program that can be run"},
		{[]string{"--limit=login=5/1d", "--alarm-mail=<x>"}, "--alarm-mail: "},
		{[]string{"--limit=login=5/1d", "--alarm-smtp=localhost"}, "--alarm-smtp: "},
		{[]string{"--limit=login=5/1d", "--limit-overrides=hash:/nonexistent"}, "--limit-overrides: "},
		{[]string{"--limit=login=5/1d", "--login-domain=a b"}, "--login-domain: "},
	} {
		args := append([]string{"--config=", "--checks=limit", "--limit-store=memory:"}, tt.args...)
		l, err := loadAll(args, nil)
		if err == nil {
			l.life.Discard()
		}
		if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.wrong)
		}
	}
}

// --check-config --online finds a table that cannot answer, whatever it is for.
func TestOnlineAsksEveryTable(t *testing.T) {
	const deaf = "socketmap:inet:127.0.0.1:1:table"
	for _, flag := range []string{"owners", "owner-aliases", "limit-overrides"} {
		args := []string{"--config=", "--checks=ownership,limit", "--limit-store=memory:", "--owners=inline:{pr@x.example=ann}", "--" + flag + "=" + deaf}
		if _, err := loadAll(args, nil); err != nil {
			t.Errorf("%s: %v", flag, err)
		}
		_, err := loadAll(append(args, "--check-config", "--online"), nil)
		if err == nil || !strings.Contains(err.Error(), flag) || !strings.Contains(err.Error(), "table "+deaf+" cannot answer") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// The place of a wrong limit in a file is named.
func TestLimitSettingsInFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policyd.toml")
	if err := os.WriteFile(path, []byte("checks = [\"limit\"]\nlimit = [\n  \"login=5/1h\",\n  \"login=10/0s\",\n]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := configure([]string{"--config", path}, nil); err == nil || !strings.Contains(err.Error(), path+":4: limit: ") {
		t.Errorf("%v", err)
	}
}

// limitRequest is a recipient that a login names.
func limitRequest(login, instance string) *policy.Request {
	r, err := policy.ParseRequest([]policy.Attribute{
		{Name: "request", Value: "smtpd_access_policy"}, {Name: "protocol_state", Value: "RCPT"}, {Name: "sasl_username", Value: login}, {Name: "instance", Value: instance},
		{Name: "sender", Value: login}, {Name: "recipient", Value: "ann@y.example"}, {Name: "client_address", Value: "192.0.2.7"}, {Name: "client_port", Value: "4000"},
	}, time.Now())
	if err != nil {
		panic(err)
	}
	return r
}

// ask asks the daemon in force.
func ask(t *testing.T, c *current, r *policy.Request) policy.Decision {
	t.Helper()
	hook, err := c.Hook("limit", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer hook.Release()
	return hook.Chain.Decide(t.Context(), r)
}

// asks has a login name so many recipients, and returns how many were let through.
func asks(t *testing.T, c *current, login, instance string, n int) (passed int) {
	t.Helper()
	for i := range n {
		if d := ask(t, c, limitRequest(login, fmt.Sprint(instance, i))); d.Kind == policy.Pass {
			passed++
		}
	}
	return passed
}

// admin asks what the postern command asks.
func adminAsk[A any](t *testing.T, c *current, command string, args any) (answer A) {
	t.Helper()
	got, err := adminTry(t, c, command, args)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	answer, ok := got.(A)
	if !ok {
		t.Fatalf("%s: %T", command, got)
	}
	return answer
}

// adminTry runs a command that may fail.
func adminTry(t *testing.T, c *current, command string, args any) (any, error) {
	t.Helper()
	raw, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	commands := limitCommands(c)
	maps.Copy(commands, greylistCommands(c))
	return commands[command](t.Context(), raw, func(any) {})
}

func TestLimitReload(t *testing.T) {
	args := []string{"--checks=limit", "--limit-store=memory:", "--limit=login=5/1h"}
	c, _ := inForceWith(t, args...)
	if n := asks(t, c, "bob@x.example", "a", 9); n != 5 {
		t.Errorf("%d passed", n)
	}
	adminAsk[api.LimitsBlockResult](t, c, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example", Duration: "1h"})
	next, err := loadInto(c, quiet(), append([]string{"--config="}, append(args[:2:2], "--limit=login=7/1h")...), nil)
	if err != nil {
		t.Fatal(err)
	}
	next.apply(c)
	if n := asks(t, c, "bob@x.example", "b", 9); n != 2 {
		t.Errorf("%d passed after a reload", n)
	}
	if d := ask(t, c, limitRequest("Eve@X.example", "z")); d.Reason != record.LimitBlocked {
		t.Errorf("a block after a reload: %+v", d)
	}
	list := adminAsk[api.LimitsListResult](t, c, api.LimitsList, api.LimitsListArgs{})
	if len(list.Uses) != 1 || list.Uses[0].Percent != 100 || list.Uses[0].Value != "bob@x.example" || len(list.Blocks) != 1 || list.Store != "memory" {
		t.Errorf("%+v", list)
	}
	if r := adminAsk[api.LimitsResetResult](t, c, api.LimitsReset, api.LimitsOfArgs{Value: "BOB@x.example"}); r.Reset != 1 {
		t.Errorf("%+v", r)
	}
	if n := asks(t, c, "bob@x.example", "c", 9); n != 7 {
		t.Errorf("%d passed after a reset", n)
	}
	s := adminAsk[api.LimitsSuggestResult](t, c, api.LimitsSuggest, api.LimitsSuggestArgs{})
	if len(s.Suggestions) != 1 || s.Suggestions[0].Limit != "login.recipients=7/1h" || s.Suggestions[0].Most != 7 {
		t.Errorf("%+v", s)
	}
}

// A service that asks at the end of mails only: limits apply there, and nothing in the
// answer about the login is null.
func TestLimitAtEndOnly(t *testing.T) {
	c, _ := inForceWith(t, "--checks=limit", "--limit-store=memory:", "--limit=login=5/1h", "--limit=login.networks=1/1h")
	end := func(instance, client string, recipients int) policy.Decision {
		r := limitRequest("bob@x.example", instance)
		r.State, r.RecipientCount, r.Recipient = policy.StateEndOfMessage, recipients, mailaddr.Address{}
		r.Client.Address = netip.MustParseAddr(client)
		return ask(t, c, r)
	}
	for i, want := range []policy.Kind{policy.Pass, policy.Defer} {
		if d := end(fmt.Sprint(i), "192.0.2.7", 3); d.Kind != want {
			t.Errorf("mail %d: %+v", i, d)
		}
	}
	if d := end("other", "198.51.100.7", 1); d.Kind != policy.Defer || d.Reason != record.LimitNetworks {
		t.Errorf("from another network: %+v", d)
	}
	text, err := json.Marshal(adminAsk[api.LimitsShowResult](t, c, api.LimitsShow, api.LimitsOfArgs{Value: "bob@x.example"}))
	if err != nil || strings.Contains(string(text), "null") {
		t.Errorf("%s, %v", text, err)
	}
}

// A login can be blocked where nothing is limited.
func TestBlockWithoutLimits(t *testing.T) {
	c, _ := inForceWith(t, "--checks=limit", "--limit-store=memory:")
	if d := ask(t, c, limitRequest("eve@x.example", "a")); d.Kind != policy.Pass || d.Steps[0].Verdict.Reason != record.LimitNone {
		t.Errorf("before: %+v", d)
	}
	block := api.LimitsBlockArgs{Login: "Eve@X.example"}
	adminAsk[api.LimitsBlockResult](t, c, api.LimitsBlock, block)
	if d := ask(t, c, limitRequest("eve@x.example", "b")); d.Reason != record.LimitBlocked || d.Kind != policy.Reject {
		t.Errorf("blocked: %+v", d)
	}
	if d := ask(t, c, limitRequest("bob@x.example", "b")); d.Kind != policy.Pass {
		t.Errorf("another: %+v", d)
	}
	if list := adminAsk[api.LimitsListResult](t, c, api.LimitsList, api.LimitsListArgs{}); len(list.Blocks) != 1 || list.Blocks[0].Login != "eve@x.example" {
		t.Errorf("%+v", list)
	}
	if r := adminAsk[api.LimitsBlockResult](t, c, api.LimitsUnblock, block); !r.Was {
		t.Errorf("%+v", r)
	}
	if d := ask(t, c, limitRequest("eve@x.example", "c")); d.Kind != policy.Pass {
		t.Errorf("unblocked: %+v", d)
	}
}

// Where logins have limits and Postfix does not ask for them, the log and the command say
// so; and no longer once it asks.
func TestLimitsAreNotAskedFor(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	c := newCurrent()
	s, err := loadInto(c, service.NewRuntime(zap.New(core), metrics.New(metrics.Options{})),
		[]string{"--config=", "--checks=limit,greylist", "--greylist-store=memory:", "--resolver=127.0.0.1:9", "--limit-store=memory:", "--limit=login=5000/1h"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
	t.Cleanup(c.Close)
	const line = "users send mail and Postfix does not ask for their limits"
	named := func(login string) {
		hook, err := c.Hook("greylist", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer hook.Release()
		hook.Chain.Decide(t.Context(), limitRequest(login, "a"))
	}
	unasked := func() bool {
		return adminAsk[api.LimitsListResult](t, c, api.LimitsList, api.LimitsListArgs{}).Unasked
	}
	for range 2000 {
		named("") // strangers
	}
	if unasked() || logs.FilterMessageSnippet(line).Len() != 0 {
		t.Error("strangers count")
	}
	for range 2000 {
		named("bob@x.example")
	}
	if !unasked() || logs.FilterMessageSnippet(line).Len() != 1 {
		t.Errorf("%v, %d lines", unasked(), logs.FilterMessageSnippet(line).Len())
	}
	ask(t, c, limitRequest("bob@x.example", "b"))
	named("bob@x.example")
	if unasked() {
		t.Error("the hook asks")
	}
}

// A blocked login is refused in a hook that does not ask for limits, as setup attaches
// ownership where there are none. The hook leaves no step about anyone else, and watches
// where the check is only watched.
func TestBlockInEveryHook(t *testing.T) {
	owners := filepath.Join(t.TempDir(), "owners")
	if err := os.WriteFile(owners, []byte("eve@x.example eve@x.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--checks=ownership,limit,greylist", "--greylist-store=memory:", "--resolver=127.0.0.1:9", "--limit-store=memory:", "--owners=texthash:" + owners}
	for _, shadow := range []bool{false, true} {
		if shadow {
			args = append(args, "--shadow=limit")
		}
		c, _ := inForceWith(t, args...)
		if got := adminAsk[api.LimitsBlockResult](t, c, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example"}); got.Shadow != shadow {
			t.Errorf("%+v", got)
		}
		for _, context := range []string{"ownership", "greylist", "ownership,limit", "nonsense"} {
			for _, login := range []string{"eve@x.example", "bob@x.example"} {
				hook, err := c.Hook(context, nil)
				if err != nil {
					t.Fatal(err)
				}
				d := hook.Chain.Decide(t.Context(), limitRequest(login, "a"))
				hook.Release()
				blocked, watched := d.Check == checks.LimitName && d.Reason == record.LimitBlocked && d.Kind == policy.Reject, d.Would.Reason == record.LimitBlocked
				if login == "eve@x.example" && (blocked == shadow || watched != shadow) || login == "bob@x.example" && (blocked || watched) {
					t.Errorf("%s in %q, shadow %v: %+v", login, context, shadow, d)
				}
				steps := slices.ContainsFunc(d.Steps, func(s policy.Step) bool { return s.Check == checks.LimitName })
				if !strings.Contains(context, "limit") && steps != (login == "eve@x.example") {
					t.Errorf("%s in %q: %+v", login, context, d.Steps)
				}
			}
		}
	}
}

// Where no store is named either, the first block makes the default one, and has it
// opened. It is there for the next daemon too.
func TestFirstBlockMakesTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.db")
	c, _ := inForceWith(t, "--checks=limit")
	o, release := inForce[*limitPart](c)
	if o.store != nil {
		t.Fatal("a store was opened without need")
	}
	o.LimitStore = sqliteScheme + path
	reloads := 0
	o.reload = func(string) { reloads++ }
	release()
	r := adminAsk[api.LimitsBlockResult](t, c, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example", Duration: "1h"})
	if r.Login != "eve@x.example" || r.Until == nil || reloads != 1 || !o.keeps() {
		t.Errorf("%+v, %d reloads", r, reloads)
	}
	next, _ := inForceWith(t, "--checks=limit", "--limit-store="+sqliteScheme+path)
	if d := ask(t, next, limitRequest("eve@x.example", "a")); d.Reason != record.LimitBlocked {
		t.Errorf("after the reload: %+v", d)
	}
}

// An override is read again when its table changes, and one that is wrong is told once.
func TestLimitOverridesReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overrides")
	write := func(text string) {
		t.Helper()
		old := time.Now().Add(-time.Hour)
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path+".new", old, old); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("bob@x.example recipients=3/1h\n@y.example off\nbad@x.example many\n")
	core, logs := observer.New(zap.WarnLevel)
	r := service.NewRuntime(zap.New(core), metrics.New(metrics.Options{}))
	c := newCurrent()
	t.Cleanup(c.Close)
	load := func() {
		t.Helper()
		l, err := loadInto(c, r, []string{"--config=", "--checks=limit", "--limit-store=memory:", "--limit=login=5/1h", "--limit-overrides=texthash:" + path}, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.apply(c)
	}
	load()
	for login, want := range map[string]int{"bob@x.example": 3, "ann@y.example": 9, "bad@x.example": 5, "dan@x.example": 5} {
		if n := asks(t, c, login, login, 9); n != want {
			t.Errorf("%s: %d passed, want %d", login, n, want)
		}
	}
	if n := logs.FilterMessageSnippet("a limit override cannot be used").Len(); n != 1 {
		t.Errorf("%d warnings", n)
	}
	show := adminAsk[api.LimitsShowResult](t, c, api.LimitsShow, api.LimitsOfArgs{Value: "bob@x.example"})
	if o := show.Override; o == nil || o.Where != path+":1" || o.Entry != "recipients=3/1h" || show.Uses[0].Count != 3 {
		t.Errorf("%+v", show)
	}
	write("bob@x.example recipients=8/1h\n@y.example off\nbad@x.example many\n")
	load()
	if n := asks(t, c, "bob@x.example", "later", 9); n != 5 {
		t.Errorf("%d more passed", n)
	}
}

func TestAlarmCommand(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "alarm")
	got := filepath.Join(dir, "got")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncat >> "+got+".part && mv "+got+".part "+got+" && echo done > "+got+".fifo\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	done := fifo(t, got+".fifo")
	c, _ := inForceWith(t, "--checks=limit", "--limit-store=memory:", "--limit=login=3/1h", "--alarm-command="+script)
	asks(t, c, "bob@x.example", "a", 9)
	if line, err := done.ReadString('\n'); line != "done\n" {
		t.Fatalf("%q, %v", line, err)
	}
	text, err := os.ReadFile(got)
	if err != nil {
		t.Fatal(err)
	}
	var alarm map[string]any
	if err := json.Unmarshal(text, &alarm); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for key, want := range map[string]any{"limit": "login.recipients=3/1h", "key": "login", "value": "bob@x.example", "unit": "recipients",
		"percent": 100.0, "used": 3.0, "count": 3.0, "window_s": 3600.0, "action": "defer", "mode": "enforce"} {
		if alarm[key] != want {
			t.Errorf("%s is %v, want %v", key, alarm[key], want)
		}
	}
	if fmt.Sprint(alarm["networks"]) != "[192.0.2.0/24]" || fmt.Sprint(alarm["recipient_domains"]) != "[y.example]" {
		t.Errorf("%s", text)
	}
}

func TestAlarmMail(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got := make(chan string, 1)
	go func() { got <- smtpOnce(l) }()
	c, _ := inForceWith(t, "--checks=limit", "--limit-store=memory:", "--limit=sender=3/1h", "--alarm-mail=ops@x.example", "--alarm-smtp=inet:"+l.Addr().String())
	asks(t, c, "jürgen@x.example", "a", 3)
	mail := <-got
	for _, want := range []string{
		"MAIL FROM:<>", "RCPT TO:<ops@x.example>", "\r\nSubject: =?utf-8?q?limit_at_100_%:_sender_j=C3=BCrgen@x.example?=\r\n", "\r\nAuto-Submitted: auto-generated\r\n",
		"has used 3 of 3 recipients.",
	} {
		if !strings.Contains(mail, want) {
			t.Errorf("no %q in\n%s", want, mail)
		}
	}
}

// smtpOnce takes one mail and returns the dialogue.
func smtpOnce(l net.Listener) string {
	conn, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	var all strings.Builder
	lines := bufio.NewReader(conn)
	answer := func(text string) { _, _ = conn.Write([]byte(text + "\r\n")) }
	answer("220 x")
	inData := false
	for {
		line, err := lines.ReadString('\n')
		all.WriteString(line)
		switch {
		case err != nil:
			return all.String()
		case inData && line != ".\r\n":
		case inData:
			inData = false
			answer("250 ok")
		case line == "DATA\r\n":
			inData = true
			answer("354 go")
		case line == "QUIT\r\n":
			answer("221 bye")
			return all.String()
		default:
			answer("250 ok")
		}
	}
}

// Redis that is gone follows limit-on-error; a block that is known holds; two daemons
// share limits and blocks.
func TestLimitRedis(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	args := []string{"--checks=limit", "--limit-store=redis://" + server.Addr, "--limit=login=5/1h", "--limit-on-error=defer"}
	a, _ := inForceWith(t, args...)
	b, _ := inForceWith(t, args...)
	if n := asks(t, a, "bob@x.example", "a", 3) + asks(t, b, "bob@x.example", "b", 9); n != 5 {
		t.Errorf("%d passed", n)
	}
	adminAsk[api.LimitsBlockResult](t, a, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example"})
	for _, c := range []*current{a, b} {
		if d := ask(t, c, limitRequest("eve@x.example", "c")); d.Reason != record.LimitBlocked {
			t.Errorf("a block of another host: %+v", d)
		}
	}
	if got := adminAsk[api.LimitsShowResult](t, b, api.LimitsShow, api.LimitsOfArgs{Value: "bob@x.example"}); got.Uses[0].Used != 5 {
		t.Errorf("%+v", got)
	}
	server.Kill()
	raw, err := json.Marshal(api.LimitsBlockArgs{Login: "ann@x.example"})
	if err != nil {
		t.Fatal(err)
	}
	if d := ask(t, a, limitRequest("bob@x.example", "d")); d.Kind != policy.Defer || d.Reason != record.LimitUnavailable {
		t.Errorf("without a server: %+v", d)
	}
	if d := ask(t, a, limitRequest("eve@x.example", "d")); d.Reason != record.LimitBlocked {
		t.Errorf("a block without a server: %+v", d)
	}
	// Once the breaker is open, a person waits for no server either.
	for err = nil; err == nil || !strings.Contains(err.Error(), limit.ErrUnavailable.Error()); {
		if _, err = limitCommands(a)[api.LimitsBlock](t.Context(), raw, func(any) {}); err == nil {
			t.Fatal("a login was blocked without a server")
		}
	}
	server = server.Restart()
	for {
		if d := ask(t, a, limitRequest("bob@x.example", "e")); d.Kind == policy.Pass {
			break
		}
	}
	// One that does not answer at all costs each request its share of the time, until
	// the breaker opens.
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	hook, err := a.Hook("limit", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer hook.Release()
	if d := hook.Chain.Decide(ctx, limitRequest("bob@x.example", "f")); d.Kind != policy.Defer {
		t.Errorf("a server that does not answer: %+v", d)
	}
	server.Resume()
}

// fifo is a pipe that a script writes to.
func fifo(t *testing.T, path string) *bufio.Reader {
	t.Helper()
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return bufio.NewReader(f)
}
