package redisclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// serverError is an error that a server has sent.
type serverError string

func (e serverError) Error() string { return string(e) }
func (serverError) RedisError()     {}

// Errors that trying again does not help against say what does, once, at their end.
func TestErrorsHaveAFix(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}, "; renew the certificate of the server"},
		{&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: new(x509.Certificate), Host: "redis.example.org"}}, "; give the server a certificate for this name"},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, "?ca=FILE"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, "; the server has no TLS at this port"},
		{errors.New("remote error: tls: certificate required"), "; set tls-auth-clients no"},
		{serverError("WRONGPASS invalid username-password pair or user is disabled."), "; correct the password file"},
		{serverError("NOAUTH Authentication required."), "; set the password file"},
		{errors.New("connect: connection refused"), ""},
		{serverError("LOADING Redis is loading the dataset in memory"), ""},
	} {
		got := Error(fmt.Errorf("dial: %w", test.err))
		if _, is := test.err.(serverError); is {
			got = Error(test.err)
		}
		if text := got.Error(); !strings.Contains(text, test.want) || strings.Contains(text, "; ") != (test.want != "") {
			t.Errorf("%v: %s, want %q", test.err, text, test.want)
		}
	}
}
