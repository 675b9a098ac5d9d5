package milterd

import "github.com/postern-mail/postern/internal/config"

// Settings returns the settings that the daemon would have with these arguments and
// environment. No daemon has to run.
func Settings(args, environ []string) ([]config.Value, error) {
	s, err := configure(args, environ)
	if err != nil {
		return nil, err
	}
	return s.set.Values(), nil
}
