package main

import (
	"bytes"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/service"
)

const commandHelp = `The administrator's command.

  postern owners check SENDER LOGIN  may LOGIN use SENDER
  postern owners list LOGIN [SENDER ...]  which senders LOGIN owns
  postern completion bash|zsh|fish   the completion script of a shell
  postern version                    the release

` + "`postern COMMAND --help` lists a command's flags.\n"

const flagHelp = `may LOGIN use SENDER

Usage: postern owners check [flags] SENDER LOGIN

      --admin endpoint   endpoint of the daemon's "admin" socket (default unix:/run/x)
  -h, --help             print this help
                         and exit
      --json
      --kind a|b         -x\y

Behind them,
.more.
`

func TestParseCommands(t *testing.T) {
	want := []listed{
		{"owners check", "SENDER LOGIN", "may LOGIN use SENDER"},
		{"owners list", "LOGIN [SENDER ...]", "which senders LOGIN owns"},
		{"completion", "bash|zsh|fish", "the completion script of a shell"},
		{"version", "", "the release"},
	}
	if got := parseCommands("postern", commandHelp); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestParseFlags(t *testing.T) {
	want := []flag{
		{"--admin endpoint", `endpoint of the daemon's "admin" socket (default unix:/run/x)`},
		{"-h, --help", "print this help and exit"},
		{"--json", ""},
		{"--kind a|b", `-x\y`},
	}
	got, rest := parseFlags(flagHelp)
	if !slices.Equal(got, want) || rest != "Behind them, .more." {
		t.Errorf("%q, %q", got, rest)
	}
}

// programs answers --help as the programs do.
func programs(name string) helper {
	return func(args ...string) (string, error) {
		var out bytes.Buffer
		switch name {
		case "postern-policyd":
			policyd.Main(service.Process{Args: args, Stdout: &out, Stderr: &out})
		case "postern-milterd":
			milterd.Main(service.Process{Args: args, Stdout: &out, Stderr: &out})
		default:
			out.WriteString(map[bool]string{true: commandHelp, false: flagHelp}[args[0] == "help"])
		}
		return out.String(), nil
	}
}

// Every flag is in the page, and groff reads the page without a warning.
func TestPages(t *testing.T) {
	for _, p := range pages() {
		help := programs(p.name)
		text, err := p.render(help)
		if err != nil {
			t.Fatal(err)
		}
		first := "--help"
		if !p.daemon {
			first = "owners"
		}
		shown, err := help(first)
		if err != nil {
			t.Fatal(err)
		}
		flags, _ := parseFlags(shown)
		if len(flags) < 4 {
			t.Errorf("%s: %d flags", p.name, len(flags))
		}
		for _, f := range flags {
			if !strings.Contains(text, "\n.TP\n.B "+escape(f.names)+"\n"+escape(f.text)+"\n") {
				t.Errorf("%s: %s is not in the page", p.name, f.names)
			}
		}
		if i := strings.Index(text, "\n.PP\n"); i >= 0 && strings.HasPrefix(text[strings.LastIndex(text[:i], "\n")+1:], ".S") {
			t.Errorf("%s: a paragraph begins twice: %q", p.name, text[i:min(i+60, len(text))]) // mandoc warns
		}
		cmd := exec.CommandContext(t.Context(), "groff", "-man", "-ww", "-Tutf8", "-z")
		cmd.Stdin = strings.NewReader(text)
		if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
			t.Errorf("%s: groff: %v\n%s", p.name, err, said)
		}
	}
}

// The page of a daemon has every exit status, and every file that is a default.
func TestStatusAndFiles(t *testing.T) {
	for _, p := range pages() {
		if !p.daemon {
			continue
		}
		var status, files []string
		for _, e := range p.status {
			status = append(status, e.term)
		}
		for _, e := range p.files {
			files = append(files, e.term)
		}
		for _, code := range []int{daemon.ExitOK, daemon.ExitFailed, daemon.ExitTransient, config.ExitConfig} {
			if !slices.Contains(status, strconv.Itoa(code)) {
				t.Errorf("%s: the page does not have the exit status %d", p.name, code)
			}
		}
		help, err := programs(p.name)("--help")
		if err != nil {
			t.Fatal(err)
		}
		defaults := regexp.MustCompile(`/(?:etc|run|var/lib)/postern/[\w./-]*\w`).FindAllString(help, -1)
		if len(defaults) < 3 {
			t.Fatalf("%s: default files %q", p.name, defaults)
		}
		for _, file := range defaults {
			if !strings.Contains(strings.Join(files, "\n"), file) {
				t.Errorf("%s: the page does not have the file %s", p.name, file)
			}
		}
	}
}
