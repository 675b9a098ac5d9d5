package admin

import (
	"errors"
	"strings"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
)

// queueDirectory is where the daemons look for relative paths by default.
const queueDirectory = "/var/spool/postfix"

// SetEndpoint sets where c connects. The notation is that of --admin of the
// daemons (unix:PATH, inet:HOST:PORT). A plain path is a unix socket.
func (c *Client) SetEndpoint(spelling string) error {
	if spelling == "" {
		return errors.New("no endpoint; write unix:PATH, as --admin of the daemon has it")
	}
	if !isEndpoint(spelling) {
		c.Network, c.Path = daemon.NetworkUnix, spelling
		return nil
	}
	e, err := daemon.ParseEndpoint(spelling, queueDirectory)
	switch {
	case err != nil:
		return err
	case e.Network == daemon.NetworkSystemd:
		return errors.New("systemd: names no address; write unix:PATH, with the path of the socket unit")
	case e.Suffix != nil:
		return errors.New("an admin endpoint takes nothing after \"=\"; write unix:PATH")
	}
	c.Network, c.Path = e.Network, e.Address
	return nil
}

// UseSettings sets where c connects to what "admin" is in a daemon's file of settings.
// It changes nothing if the file has no such setting or cannot be read: the daemon then
// has its default, or reports the mistake itself.
func (c *Client) UseSettings(name string) {
	settings, err := config.ReadDocument(name)
	if err != nil {
		return
	}
	if at := settings.Values("admin"); len(at) == 1 {
		_ = c.SetEndpoint(at[0]) // "" is none
	}
}

// isEndpoint reports whether s has the notation of an endpoint of the daemons. A
// path with a colon has not, unless it starts with one of the words of endpoints.
func isEndpoint(s string) bool {
	for _, word := range []string{"unix:", "inet:", "systemd:"} {
		if strings.HasPrefix(s, word) {
			return true
		}
	}
	return s == "systemd"
}

// Endpoint returns where c connects, in the notation of --admin.
func (c *Client) Endpoint() string {
	if c.Network == daemon.NetworkTCP {
		return "inet:" + c.Path
	}
	return "unix:" + c.Path
}
