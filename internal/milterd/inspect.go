package milterd

import "github.com/postern-mail/postern/internal/config"

// Settings returns what the daemon with these arguments and environment would be set
// to, without one.
func Settings(args, environ []string) ([]config.Value, error) {
	s, err := configure(args, environ)
	if err != nil {
		return nil, err
	}
	return s.set.Values(), nil
}
