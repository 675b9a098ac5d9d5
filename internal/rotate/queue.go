package rotate

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/postconf"
)

const (
	postconfTimeout = 10 * time.Second
	// lifetimeUnknown is used while postconf does not answer. It is longer than usual
	// values, because a record that stays longer does no harm.
	lifetimeUnknown = 30 * 24 * time.Hour
	maxLifetime     = 365 * 24 * time.Hour
)

// QueueLifetime asks Postfix for its maximal_queue_lifetime.
func QueueLifetime(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, postconfTimeout)
	defer cancel()
	out, _, err := postconf.Run(ctx, "postconf", "-h", "maximal_queue_lifetime")
	if err != nil {
		return lifetimeUnknown
	}
	lifetime, err := parseLifetime(strings.TrimSpace(out))
	if err != nil {
		return lifetimeUnknown
	}
	return lifetime
}

// parseLifetime parses a time of Postfix. Without a unit, it is in days.
func parseLifetime(text string) (time.Duration, error) {
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
	unit := 24 * time.Hour
	if n := len(text); n > 0 && units[strings.ToLower(text[n-1:])] > 0 {
		text, unit = text[:n-1], units[strings.ToLower(text[n-1:])]
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time", text)
	}
	if n > uint64(maxLifetime/unit) {
		return maxLifetime, nil
	}
	return time.Duration(n) * unit, nil
}
