package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/internal/milterd"
)

func explainGroup() group {
	return group{"explain", "Show why a mail gets its verdict.", []command{
		{
			path: "explain message", args: "FILE", bind: bindExplainMessage, files: true,
			help: "how a message would be verified: every DNS answer, SPF step and signature, and the header it gets",
		},
		{
			path: "explain policy", args: "[-]", bind: bindExplainPolicy,
			help: "what the running policy daemon would answer to Postfix, why, and what would change it; it changes nothing",
		},
		{
			path: "explain whose", bind: bindExplainWhose, words: map[string][]string{"socket": {milterd.SocketSign, milterd.SocketVerify, milterd.SocketAny}},
			help: "whether the milter signs or verifies a mail: the table that decides, and the row that applies",
		},
	}}
}

func bindExplainMessage(fs *pflag.FlagSet) runner {
	var args milterd.ExplainArgs
	fs.StringVar(&args.Client, "ip", "", "`address` of the client that hands the message over")
	fs.StringVar(&args.Helo, "helo", "", "`name` that it gives in HELO or EHLO")
	fs.StringVar(&args.Sender, "from", "", "envelope `sender`, as in MAIL FROM; \"\" for the null sender")
	at := fs.String("at", "", "`time` of arrival, at which signatures are judged, as 2026-11-21T02:00:00Z (default that of the topmost Received field)")
	to := fs.String("to", "", "envelope `recipient`, shown with a refusal")
	fs.String("config", api.MilterdConfig, "the daemon's configuration `file`, read when it exists; the flags below replace what it says")
	fs.StringArray("resolver", nil, "DNS server to ask, `host:port`; repeat for several (default those of resolv.conf)")
	fs.Duration("dns-timeout", 2*time.Second, "how long one DNS query may take")
	fs.String("authserv-id", "", "`name` in Authentication-Results (default this host's)")
	spfReject := fs.Bool("spf-reject", false, "as the daemon with --spf-reject fail")
	fs.Bool("received-spf", false, "as the daemon with --received-spf")
	for _, name := range dmarcFlags() {
		fs.StringArray(name, nil, "`value` of the daemon's flag of this name")
	}
	asJSON := fs.Bool("json", false, "print everything as JSON")
	return func(ctx context.Context, io streams, rest []string) (int, error) {
		if len(rest) != 1 {
			return exitFailed, errUsage
		}
		if !fs.Changed("ip") || !fs.Changed("from") {
			return exitFailed, errors.New("--ip and --from are needed: SPF is about them (--from \"\" for the null sender)")
		}
		var err error
		if args.At, err = parseTime(*at, time.Now()); err != nil {
			return exitFailed, err
		}
		file, err := openMessage(ctx, rest[0])
		if err != nil {
			return exitFailed, err
		}
		defer file.Close()
		args.Message = file
		args.Settings = daemonArguments(fs, *spfReject)
		x, err := milterd.Explain(ctx, args)
		if err != nil {
			return exitFailed, fmt.Errorf("%s: %w", rest[0], err)
		}
		code := exitYes
		if x.Refused != "" {
			code = exitNo
		}
		if *asJSON {
			return code, printJSON(io.out, x)
		}
		printExplanation(io.out, x, *to)
		return code, nil
	}
}

// dmarcFlags are flags of the daemon that this command takes too, to show what they
// would do.
func dmarcFlags() []string {
	return []string{"dmarc-enforce", "dmarc-quarantine", "dmarc-org", "dmarc-allow", "trusted-arc-sealers", "trusted-forwarders", "dnsbl", "shadow"}
}

// daemonArguments returns the given flags as arguments of the daemon.
func daemonArguments(fs *pflag.FlagSet, spfReject bool) []string {
	all := givenFlags(fs, append(dmarcFlags(), "config", "resolver", "dns-timeout", "authserv-id", "received-spf"))
	if spfReject {
		all = append(all, "--spf-reject=fail")
	}
	return all
}

// givenFlags returns those of the named flags that were given, as arguments. The
// default of "config" is not passed on: that file need not exist.
func givenFlags(fs *pflag.FlagSet, names []string) (all []string) {
	for _, name := range names {
		f := fs.Lookup(name)
		switch list, ok := f.Value.(pflag.SliceValue); {
		case !f.Changed:
		case ok:
			for _, value := range list.GetSlice() {
				all = append(all, "--"+name+"="+value)
			}
		default:
			all = append(all, "--"+name+"="+f.Value.String())
		}
	}
	return all
}

// parseTime parses a time as a Received field, a log or a person writes it. "" is no time.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := mail.ParseDate(text); err == nil {
		return at, nil
	}
	at, err := maillog.ParseTime(text, now)
	if err != nil {
		return at, fmt.Errorf("--at %w, or the date of a Received field", err)
	}
	return at, nil
}

// openMessage opens a file, or standard input for "-".
func openMessage(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(stdin(ctx)), nil
	}
	return os.Open(name)
}

// printExplanation prints text from strangers in quotes or escaped, so that it cannot
// control the terminal.
func printExplanation(w io.Writer, x *api.Explanation, to string) {
	from := map[string]string{api.AtFlag: "--at", api.AtReceived: "its Received field", api.AtNow: "now: it has no Received field"}[x.AtFrom]
	fmt.Fprintf(w, "judged as of %s (%s); DNS is asked now\nwhose mail: %s (postern explain whose)\n\nDNS\n", x.At.UTC().Format(time.RFC3339), from, x.Whose)
	for _, q := range x.Questions {
		fmt.Fprintf(w, "  %-5s %s  (%.1f ms)\n", q.Type, shown(q.Name), q.Millis)
		for _, a := range q.Answers {
			fmt.Fprintf(w, "          %s\n", shown(a))
		}
		if q.Error != "" {
			fmt.Fprintf(w, "          %s\n", shown(q.Error))
		}
	}
	for _, s := range x.SPF {
		printSPF(w, s)
	}
	printSignatures(w, x)
	if x.IPRev != "" {
		fmt.Fprintf(w, "\niprev: %s\n", shown(x.IPRev))
	}
	printDMARC(w, x)
	for _, name := range x.Removed {
		fmt.Fprintf(w, "\nremoved, because it claims to be ours: %s\n", name)
	}
	for _, note := range x.Notes {
		fmt.Fprintf(w, "\nnote: %s\n", shown(note))
	}
	if x.Error != "" {
		fmt.Fprintf(w, "\nnot verified: %s\n", shown(x.Error))
	}
	if x.Refused != "" {
		fmt.Fprintf(w, "\nrefused%s: %s\n", forRecipient(to), shown(x.Refused))
	}
	if x.Held != "" {
		fmt.Fprintf(w, "\nput on hold: %s\n", shown(x.Held))
	}
	fmt.Fprintf(w, "\nadded (%s):\n", x.Reason)
	for _, f := range x.Added {
		fmt.Fprintf(w, "%s: %s\n", f.Name, f.Value)
	}
}

func forRecipient(to string) string {
	if to == "" {
		return ""
	}
	return " for " + shown(to)
}

func printSPF(w io.Writer, s api.ExplainedSPF) {
	fmt.Fprintf(w, "\nSPF %s %s: %s\n", s.Identity, shown(s.Domain), s.Result)
	for _, step := range s.Steps {
		fmt.Fprintf(w, "  %s\n", shown(step))
	}
	for _, line := range []struct{ name, value string }{
		{"matched", s.Mechanism}, {"network", s.Network}, {"path", strings.Join(s.Path, " > ")},
		{"because", s.Error}, {"explains", s.Explanation},
	} {
		if line.value != "" {
			fmt.Fprintf(w, "  %-8s %s\n", line.name, shown(line.value))
		}
	}
	fmt.Fprintf(w, "  %-8s %d of 10 terms asked DNS, %d of 2 found nothing\n", "limits", s.Lookups, s.Voids)
}

func printSignatures(w io.Writer, x *api.Explanation) {
	if len(x.Signatures) == 0 {
		fmt.Fprintln(w, "\nDKIM: no signature")
	}
	for i, s := range x.Signatures {
		fmt.Fprintf(w, "\nDKIM signature %d: %s", i+1, s.Result)
		if s.Reason != "" {
			fmt.Fprintf(w, " (%s)", s.Reason)
		}
		fmt.Fprintf(w, "\n  d=%s s=%s i=%s a=%s", shown(s.Domain), shown(s.Selector), shown(s.Identity), shown(s.Algorithm))
		if s.KeyBits > 0 {
			fmt.Fprintf(w, ", %d-bit key", s.KeyBits)
		}
		fmt.Fprintln(w)
		if len(s.Signed) > 0 {
			fmt.Fprintf(w, "  signs %s\n", shown(strings.Join(s.Signed, " ")))
		}
		if s.Error != "" {
			fmt.Fprintf(w, "  %s\n", shown(s.Error))
		}
	}
	if x.SkippedSig > 0 {
		fmt.Fprintf(w, "\n%d more signatures were not looked at\n", x.SkippedSig)
	}
	fmt.Fprintf(w, "\nFrom: %s\n", shown(x.From))
}
