package main

import (
	"fmt"
	"strings"
)

// page is one manual page. The rest of its text comes from the program's help.
type page struct {
	name    string
	section int
	brief   string // after the name
	about   string // paragraphs of DESCRIPTION, separated by empty lines
	daemon  bool
	files   []entry
	status  []entry
	see     string
}

type entry struct{ term, text string }

func pages() []page {
	daemonStatus := []entry{
		{"0", "The daemon was stopped."},
		{"1", "The daemon ended because of an error, which it has logged."},
		{"75", "The daemon cannot start now, because of something that may pass: a full disk, or a port that is still in use. Its unit tries again."},
		{"78", "A setting is wrong. One line on standard error names it."},
	}
	return []page{
		{
			name: "postern", section: 1, brief: "the administrator's command of the Postern daemons",
			about: "postern attaches postern-policyd(8) and postern-milterd(8) to Postfix, asks them over their admin sockets, shows what they decided and why, " +
				"finds what is wrong, and makes and replaces DKIM keys. Flags follow the words that name a command.",
			status: []entry{
				{"0", "The answer is yes, or the command did what was asked."},
				{"1", "The answer is no, nothing matches, or there is a warning."},
				{"2", "The command failed, or what it looked at does. Standard error has the cause."},
			},
			files: []entry{
				{"/run/postern/policyd.sock, /run/postern/milterd.sock", "The admin sockets of the daemons. Where admin in their settings names another one, that is used."},
				{"/etc/postern/policyd.toml, /etc/postern/milterd.toml", "The settings of the daemons."},
				{"/etc/postern/setup", "What postern setup has changed."},
				{"/etc/postern/dkim", "The private keys of postern-milterd."},
			},
			see: "postern-policyd(8), postern-milterd(8), postconf(5)",
		},
		{
			name: "postern-policyd", section: 8, daemon: true, brief: "Postfix policy daemon: sender ownership, limits, DNS lists, greylisting",
			about: "postern-policyd answers the questions of Postfix's check_policy_service. It decides who may use which envelope sender, " +
				"limits how much may be sent, asks DNS lists about clients and domains, and greylists mail of unknown senders. It writes one line for each decision.",
			status: daemonStatus,
			files: []entry{
				{"/etc/postern/policyd.toml", "The settings, read when it exists."},
				{"/var/lib/postern/greylist.db", "The greylist."},
				{"/var/lib/postern/limits.db", "What the limits have counted, and blocked logins."},
				{"/run/postern/policyd.sock", "The admin socket."},
			},
			see: "postern(1), postern-milterd(8), postconf(5), access(5)",
		},
		{
			name: "postern-milterd", section: 8, daemon: true, brief: "Postfix milter: DKIM signing; SPF, DKIM, ARC and DMARC verification",
			about: "postern-milterd is a milter. It puts DKIM signatures on mail of your domains, and judges mail from the internet by SPF, " +
				"DKIM, ARC and DMARC. It writes one line for each mail.",
			status: daemonStatus,
			files: []entry{
				{"/etc/postern/milterd.toml", "The settings, read when it exists."},
				{"/etc/postern/dkim/DOMAIN/SELECTOR.private", "The private keys."},
				{"/var/lib/postern/mark.key", "The key of marks, by which mail that comes back is recognised."},
				{"/var/lib/postern/received.db", "Received DMARC reports, for the status page; postern dmarc read writes it."},
				{"/run/postern/milterd.sock", "The admin socket."},
			},
			see: "postern(1), postern-policyd(8), postconf(5)",
		},
	}
}

// signals returns the signals that both daemons handle.
func signals() []entry {
	return []entry{
		{"SIGHUP", "Load the settings and everything that they name anew. When something is wrong, the old ones stay in force. A log file is opened anew."},
		{"SIGUSR2", "Start a new process that takes over the sockets, and end when it serves, as postern restart does."},
		{"SIGTERM, SIGINT", "Finish what is in progress, no longer than --drain-timeout, and end."},
	}
}

// helper runs the program with arguments and returns what it prints.
type helper func(args ...string) (string, error)

// render returns the page in roff.
func (p page) render(help helper) (string, error) {
	var r roff
	r.line(`.TH %s %d "" Postern "Postern"`, strings.ToUpper(p.name), p.section)
	r.line(".ad l") // long values cannot be justified
	r.section("NAME")
	r.text(p.name + " - " + p.brief)
	r.section("SYNOPSIS")
	if p.daemon {
		r.line(`.B %s`, escape(p.name))
		r.text("[flags]")
	} else {
		r.line(`.B %s`, escape(p.name))
		r.text("COMMAND [flags] [arguments]")
	}
	r.section("DESCRIPTION")
	r.text(p.about)
	options := p.commands
	if p.daemon {
		options = p.flags
	}
	if err := options(&r, help); err != nil {
		return "", err
	}
	if p.daemon {
		r.section("SIGNALS")
		r.entries(signals())
	}
	r.section("EXIT STATUS")
	r.entries(p.status)
	r.section("FILES")
	r.entries(p.files)
	r.section("SEE ALSO")
	r.text(p.see)
	return r.String(), nil
}

// flags writes the flags of a daemon, and the text after them in its help.
func (p page) flags(r *roff, help helper) error {
	text, err := help("--help")
	if err != nil {
		return err
	}
	flags, rest := parseFlags(text)
	if len(flags) == 0 {
		return fmt.Errorf("%s --help names no flag", p.name)
	}
	r.section("OPTIONS")
	r.flags(flags)
	r.paragraph(rest)
	return nil
}

// commands writes the commands of postern with their flags.
func (p page) commands(r *roff, help helper) error {
	text, err := help("help")
	if err != nil {
		return err
	}
	all := parseCommands(p.name, text)
	if len(all) == 0 {
		return fmt.Errorf("%s help names no command", p.name)
	}
	r.section("COMMANDS")
	for _, c := range all {
		text, err := help(append(strings.Fields(c.path), "--help")...)
		if err != nil {
			return err
		}
		flags, _ := parseFlags(text)
		r.line(".SS %s", escape(strings.TrimSpace(p.name+" "+c.path+" "+c.args)))
		r.text(sentence(c.help))
		r.flags(flags)
	}
	return nil
}

func sentence(s string) string {
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
