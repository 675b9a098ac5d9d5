package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

// policydClient binds the flag that finds the policy daemon.
func policydClient(fs *pflag.FlagSet) *admin.Client {
	return client(fs, api.Policyd, api.PolicydSocket)
}

// milterdClient binds the flag that finds the milter daemon.
func milterdClient(fs *pflag.FlagSet) *admin.Client {
	return client(fs, api.Milterd, api.MilterdSocket)
}

func client(fs *pflag.FlagSet, daemon, path string) *admin.Client {
	c := &admin.Client{Daemon: daemon, Path: path}
	fs.Var(adminFlag{c}, "admin", "`endpoint` of "+daemon+"'s admin socket, as its --admin has it")
	return c
}

// adminFlag is the value of --admin: an endpoint as the daemons spell it, or the
// path of a unix socket.
type adminFlag struct{ client *admin.Client }

func (f adminFlag) Set(s string) error { return f.client.SetEndpoint(s) }
func (f adminFlag) Type() string       { return "endpoint" }
func (f adminFlag) String() string {
	if f.client == nil {
		return ""
	}
	return f.client.Endpoint()
}

// settingsOf returns the file of settings of a daemon.
func settingsOf(daemon string) string {
	if daemon == api.Milterd {
		return api.MilterdConfig
	}
	return api.PolicydConfig
}

// configuredClient returns a client for the socket that a daemon's file of settings names,
// or for the default one.
func configuredClient(daemon, settings string) *admin.Client {
	c := &admin.Client{Daemon: daemon, Path: api.PolicydSocket}
	if daemon == api.Milterd {
		c.Path = api.MilterdSocket
	}
	c.UseSettings(settings)
	return c
}

// findSockets has the clients of flags that were not given use the sockets that the
// settings of the daemons name.
func findSockets(fs *pflag.FlagSet, settingsOf func(daemon string) string) {
	fs.VisitAll(func(f *pflag.Flag) {
		if at, ok := f.Value.(adminFlag); ok && !f.Changed {
			at.client.UseSettings(settingsOf(at.client.Daemon))
		}
	})
}

// namedDaemons returns the daemons to ask: the one that args name, or both.
func namedDaemons(args []string, at string) ([]*admin.Client, error) {
	both := map[string]*admin.Client{
		"policyd": configuredClient(api.Policyd, api.PolicydConfig),
		"milterd": configuredClient(api.Milterd, api.MilterdConfig),
	}
	if len(args) == 0 && at == "" {
		return []*admin.Client{both["policyd"], both["milterd"]}, nil
	}
	if len(args) != 1 {
		return nil, errUsage
	}
	one := both[strings.TrimPrefix(args[0], "postern-")]
	if one == nil {
		return nil, fmt.Errorf("no daemon %.40q; write policyd or milterd", args[0])
	}
	if at == "" {
		return []*admin.Client{one}, nil
	}
	return []*admin.Client{one}, one.SetEndpoint(at)
}

// atFlag binds --admin for a command that asks one daemon or both.
func atFlag(fs *pflag.FlagSet) *string {
	return fs.String("admin", "", "`endpoint` of the daemon's admin socket, as its --admin has it (default that of the daemon)")
}

// eachDaemon asks each daemon. If there are several, a daemon that cannot be asked is
// skipped.
func eachDaemon(io streams, command string, clients []*admin.Client, ask func(*admin.Client) error) error {
	var errs []error
	for _, c := range clients {
		if err := ask(c); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(clients) {
		return errors.Join(errs...)
	}
	for _, err := range errs {
		fmt.Fprintf(io.err, "postern %s: %v\n", command, err)
	}
	return nil
}

// olderDaemon returns the error for a daemon that does not know a command, because it
// is of an older release. lacks names what is missing.
func olderDaemon(c *admin.Client, err error, lacks string) error {
	if e := (*admin.Error)(nil); errors.As(err, &e) && e.Code == admin.CodeUnknownCommand {
		return fmt.Errorf("%s is of an older release and %s; restart it (postern restart %s)", c.Daemon, lacks, strings.TrimPrefix(c.Daemon, "postern-"))
	}
	return err
}
