package redisclient

import (
	"context"
	"strings"
)

// Version returns the name and version of the server, such as "redis 7.0.15".
func (c *Client) Version(ctx context.Context) (version string, err error) {
	err = c.Do(ctx, func(ctx context.Context) error {
		node, err := c.Node(ctx)
		if err != nil {
			return err
		}
		info, err := node.Info(ctx, "server").Result()
		version = versionOf(info)
		return err
	})
	return version, err
}

// versionOf parses the answer to INFO. The answer of Valkey also has the version of
// Redis with which it is compatible.
func versionOf(info string) string {
	names := map[string]string{"valkey_version": "valkey", "redis_version": "redis"}
	found := ""
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name := names[key]; name != "" && (found == "" || name == "valkey") {
			found = name + " " + value
		}
	}
	return found
}
