package redisclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrReadOnly marks the error of a server that answers reads but does not write: its
// memory or its disk is full, or it is a replica.
var ErrReadOnly = errors.New("the server does not write")

// ErrAnswer is the error of a store for an answer that it does not understand.
var ErrAnswer = errors.New("redis: an answer has another form: is another release of Postern at work on these keys?")

// refusals are the beginnings of the errors of a server that does not write.
var refusals = []string{"OOM", "MISCONF", "READONLY", "NOREPLICAS"}

func refusesWrites(err error) bool {
	for _, prefix := range refusals {
		// Older servers wrap the error of a command in a script in another error.
		if redis.HasErrorPrefix(err, prefix) || strings.Contains(err.Error(), ": -"+prefix+" ") {
			return true
		}
	}
	return false
}

// scriptDenials are the words of the errors for a script whose user may not call a command
// or use a key: those of Redis up to version 7.0, and later ones.
var scriptDenials = []string{"The user executing the script can't", "ACL failure in script"}

// deniesScript reports whether a user has too few rights for what a script does.
func deniesScript(err error) bool {
	return slices.ContainsFunc(scriptDenials, func(words string) bool { return strings.Contains(err.Error(), words) })
}

// LacksRights reports whether the user may not send a command or use a key. The server has
// taken its password.
func LacksRights(err error) bool {
	return err != nil && (deniesScript(err) || redis.HasErrorPrefix(err, "NOPERM"))
}

// isMoving reports whether a node of a Cluster does not answer because it has only some of
// the keys while their slot moves to another node.
func isMoving(err error) bool {
	return redis.HasErrorPrefix(err, "TRYAGAIN") || redis.HasErrorPrefix(err, "ASK") || redis.HasErrorPrefix(err, "MOVED")
}

// denials are the beginnings, after ERR, of errors that a person must fix: trying
// again does not help. Redis before version 6 returns "invalid password".
var denials = []string{"WRONGPASS", "NOAUTH", "NOPERM", "DB index", "invalid DB index", "invalid password", "Client sent AUTH", "AUTH <password> called"}

// IsDenied reports whether a server has refused the user, the password or the
// database, or the user has too few rights.
func IsDenied(err error) bool {
	if err == nil {
		return false
	}
	if deniesScript(err) {
		return true
	}
	for _, prefix := range denials {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// advice returns what to do about an error that trying again does not help against: TLS
// that does not come about, or a password that the server does not take. It returns "" for
// other errors.
func advice(err error) string {
	var (
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		noTLS   tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate of the server"
	case errors.As(err, &name):
		return "give the server a certificate for this name, or write another name of it into the URL"
	case errors.As(err, &unknown):
		return "name the file of its CA at the end of the URL: ?ca=FILE"
	case errors.As(err, &noTLS):
		return "the server has no TLS at this port: write its tls-port into the URL"
	case errors.Is(err, errNoAnswer):
		return "perhaps it expects TLS at this port: then begin the URL with rediss"
	case strings.Contains(err.Error(), "tls: certificate required"):
		return "set tls-auth-clients no in the server's configuration, because no client certificate is sent"
	case redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "invalid password"):
		return "correct the password file, or the user in the URL"
	case redis.HasErrorPrefix(err, "NOAUTH"):
		return "set the password file"
	}
	return ""
}
