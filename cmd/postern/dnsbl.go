package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/policyd"
)

func dnsblGroup() group {
	return group{"dnsbl", "Ask the DNS lists, and test them.", []command{
		{path: "dnsbl check", args: "ADDRESS|NAME", help: "what every DNS list says about an address or a name", bind: bindDNSBLCheck},
		{path: "dnsbl selftest", help: "test every DNS list now, as RFC 5782 has it", bind: bindDNSBLSelfTest},
	}}
}

// bindDNSBLCheck returns exitNo for a subject whose mail is not accepted, or for which
// no list is asked.
func bindDNSBLCheck(fs *pflag.FlagSet) runner {
	ask := bindListsClient(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 1 {
			return exitFailed, errUsage
		}
		var answer api.DNSBLCheckResult
		err := ask(ctx, io, api.DNSBLCheck, api.DNSBLCheckArgs{Subject: args[0]}, &answer, func(settings []string) (err error) {
			answer, err = policyd.CheckDNSBL(ctx, settings, os.Environ(), args[0])
			return err
		})
		if err != nil {
			return exitFailed, err
		}
		code := exitYes
		if answer.Verdict != api.DNSBLNotRefused {
			code = exitNo
		}
		if *asJSON {
			return code, printJSON(io.out, answer)
		}
		printDNSBL(io.out, answer)
		return code, nil
	}
}

// bindListsClient returns a function that asks the daemon. When no daemon runs, the
// function asks the lists itself, with the settings of the daemon, and prints that.
func bindListsClient(fs *pflag.FlagSet) func(ctx context.Context, io streams, command string, args, answer any, alone func(settings []string) error) error {
	client := policydClient(fs)
	config := fs.String("config", api.PolicydConfig, "the daemon's configuration `file`, for when the daemon does not run")
	return func(ctx context.Context, io streams, command string, args, answer any, alone func([]string) error) error {
		err := client.Call(ctx, command, args, answer, nil)
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		fmt.Fprintf(io.err, "%s does not run; asking with the settings of %s\n", api.Policyd, *config)
		if fs.Changed("config") {
			return alone([]string{"--config=" + *config})
		}
		return alone(nil) // the default file need not exist
	}
}

func printDNSBL(w io.Writer, a api.DNSBLCheckResult) {
	if !a.Asked {
		fmt.Fprintf(w, "%s is not asked about: it is a private address, no host name, or there is no list for it\n", a.Subject)
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LIST\tSTATE\tANSWER\tMEANING\tWEIGHT\tLATENCY")
	for _, z := range a.Zones {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%.1f ms\n", z.Zone, z.State, dnsblAnswer(z), dnsblMeaning(z), dnsblWeight(z), z.Millis)
	}
	t.Flush()
	for _, z := range a.Zones {
		for _, line := range []string{z.Text, z.Error, z.Fix} {
			if line != "" {
				fmt.Fprintf(w, "  %s: %s\n", z.Zone, printable(line))
			}
		}
	}
	verdict := a.Verdict
	if a.Why != "" {
		verdict += ": " + printable(a.Why)
	}
	fmt.Fprintf(w, "%s: score %d, threshold %d: %s\n", a.Subject, a.Score, a.Threshold, verdict)
}

func dnsblAnswer(z api.DNSBLZone) string {
	var codes []string
	for _, c := range z.Codes {
		codes = append(codes, c.Code)
	}
	switch {
	case len(codes) > 0:
		return strings.Join(codes, ",")
	case z.Error != "":
		return "none"
	}
	return "not listed"
}

func dnsblMeaning(z api.DNSBLZone) string {
	var names []string
	for _, c := range z.Codes {
		names = append(names, fmt.Sprintf("%s (%s)", c.Meaning, c.Class))
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}

func dnsblWeight(z api.DNSBLZone) string {
	if z.Unused && len(z.Codes) > 0 {
		return "unused"
	}
	if !z.Counted {
		return "-"
	}
	return fmt.Sprintf("%+d", z.Weight)
}

func bindDNSBLSelfTest(fs *pflag.FlagSet) runner {
	ask := bindListsClient(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		var answer api.DNSBLSelfTestResult
		err := ask(ctx, io, api.DNSBLSelfTest, nil, &answer, func(settings []string) (err error) {
			answer, err = policyd.TestDNSBL(ctx, settings, os.Environ())
			return err
		})
		if err != nil {
			return exitFailed, err
		}
		code := exitNo
		if answer.Healthy {
			code = exitYes
		}
		if *asJSON {
			return code, printJSON(io.out, answer)
		}
		printSelfTest(io.out, answer)
		return code, nil
	}
}

func printSelfTest(w io.Writer, a api.DNSBLSelfTestResult) {
	for _, z := range a.Zones {
		state := z.State
		if z.Off {
			state += ", not tested (dnsbl-selftest off)"
		}
		fmt.Fprintf(w, "%s (%s): %s\n", z.Zone, z.Kind, state)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, p := range z.Points {
			answer := dnsblAnswer(api.DNSBLZone{Codes: p.Codes, Error: p.Error})
			if p.Error != "" {
				answer = p.Error
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%.1f ms\n", p.Subject, answer, dnsblExpected(p), p.Millis)
		}
		t.Flush()
		if z.Fix != "" {
			fmt.Fprintf(w, "  %s\n", z.Fix)
		}
	}
}

func dnsblExpected(p api.DNSBLPoint) string {
	switch {
	case p.OK:
		return "as it should be"
	case p.Optional && p.Want == "listed":
		return "need not be listed"
	}
	return "should be " + p.Want
}
