package redisclient

import (
	"context"
	"strings"
)

// Version is what the server calls itself, such as "redis 7.0.15".
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

// versionOf reads the answer to INFO. Valkey gives the version of Redis that it is
// compatible with, too.
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
