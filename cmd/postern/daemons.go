package main

import (
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
