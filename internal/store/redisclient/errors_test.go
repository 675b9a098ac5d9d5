package redisclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

// A file of the authority that the user may not read says so, with the fix.
func TestAuthorityThatMayNotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // whose user for files is another one
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setfsuid(0) }() // its error would only say that it was another one
	_, err := (&address{tls: true, caFile: file}).tlsConfig()
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "; let the daemon's user") {
		t.Errorf("error %v", err)
	}
}
