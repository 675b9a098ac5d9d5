package redisclient

import (
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrReadOnly marks the error of a server that answers what is only read, but
// does not write: its memory or its disk is full, or it is a replica.
var ErrReadOnly = errors.New("the server does not write")

// refusals are how errors of a server that does not write begin.
var refusals = []string{"OOM", "MISCONF", "READONLY", "NOREPLICAS"}

func refusesWrites(err error) bool {
	for _, prefix := range refusals {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	// Older servers put the error of a command in a script into another.
	return strings.Contains(err.Error(), "-OOM command not allowed")
}

// denials are how errors begin, after ERR, that a person has to do something
// about: no further try will help. Redis before version 6 says "invalid password".
var denials = []string{"WRONGPASS", "NOAUTH", "NOPERM", "DB index", "invalid DB index", "invalid password", "Client sent AUTH", "AUTH <password> called"}

// IsDenied reports whether a server has refused the user, the password or the
// database.
func IsDenied(err error) bool {
	for _, prefix := range denials {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}
