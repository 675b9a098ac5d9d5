package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/miekg/dns"
)

// Causes of the [net.DNSError] that every method returns: test for them with
// [errors.Is]. NXDomain, ServFail, Refused and the other codes work in the same
// way.
var (
	ErrNoData      = errors.New("no record of this type")
	ErrBadName     = errors.New("not a name that DNS can carry")
	ErrBadType     = errors.New("record type not supported")
	ErrTimeout     = errors.New("no answer in time")
	ErrUnreachable = errors.New("server cannot be reached")
	ErrMalformed   = errors.New("malformed answer")
	ErrClosed      = errors.New("resolver is closed")
	ErrCrowded     = errors.New("no answer in time, and other questions wait")
	ErrDown        = errors.New("no DNS server answers")
	ErrNoTCP       = errors.New("the answer does not fit into a packet, and the server does not answer over TCP")
)

// RCode is a response code (RFC 1035 section 4.1.1, RFC 6895), and an error.
type RCode uint16

// The codes that callers distinguish.
const (
	NoError  RCode = dns.RcodeSuccess
	FormErr  RCode = dns.RcodeFormatError
	ServFail RCode = dns.RcodeServerFailure
	NXDomain RCode = dns.RcodeNameError
	NotImp   RCode = dns.RcodeNotImplemented
	Refused  RCode = dns.RcodeRefused
	badVers  RCode = dns.RcodeBadVers
)

// Error names the code, with the names that dig prints.
func (c RCode) Error() string {
	switch c {
	case NoError:
		return "NOERROR"
	case FormErr:
		return "server answered FORMERR"
	case ServFail:
		return "server answered SERVFAIL"
	case NXDomain:
		return "no such name (NXDOMAIN)"
	case NotImp:
		return "server answered NOTIMP"
	case Refused:
		return "server answered REFUSED"
	}
	return fmt.Sprintf("server answered with code %d", uint16(c))
}

// failKind is the kind of a failure: who caused it. It decides what happens next.
type failKind uint8

const (
	failAnswer      failKind = iota // the server answered, with an error or nonsense
	failSilent                      // the server did not answer
	failUnreachable                 // the network says that there is no server
	failLocal                       // this machine has no socket or port left
	failStopped                     // Close
	failCrowded                     // the server did not answer, and others needed the place
	failDown                        // no server answers: not asked
)

// failure is a lookup, or one try of it, that ended without an answer.
type failure struct {
	kind   failKind
	cause  error
	server string
}

// kept reports whether the cache may keep f. Only errors and silence of a server
// are kept: to ask an unreachable server again costs nothing.
func (f *failure) kept() bool { return f.kind == failAnswer || f.kind == failSilent }

// hidden reports whether no packet came from the server.
func (f *failure) hidden() bool {
	return f.kind == failSilent || f.kind == failCrowded || f.kind == failUnreachable
}

// dnsError returns f as an error for a caller that asked for name.
func (f *failure) dnsError(name string) *net.DNSError {
	return &net.DNSError{
		UnwrapErr:   f.cause,
		Err:         f.cause.Error(),
		Name:        name,
		Server:      f.server,
		IsTimeout:   f.kind == failSilent || f.kind == failCrowded || f.kind == failDown,
		IsTemporary: true,
	}
}

// worse returns the failure to report. An error of a server comes before silence,
// and a later failure before an earlier one.
func worse(first, later *failure) *failure {
	if first != nil && first.kind == failAnswer && later.kind != failAnswer {
		return first
	}
	return later
}

// unreachable returns the part of a socket's error that comes from the system.
func unreachable(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		err = number
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// absent returns the error for a proven absence. cause is NXDomain or ErrNoData.
func absent(name string, cause error) *net.DNSError {
	return &net.DNSError{UnwrapErr: cause, Err: cause.Error(), Name: name, IsNotFound: true}
}

// unaskable returns the permanent error for a name or type that cannot be asked
// for.
func unaskable(name string, cause error) *net.DNSError {
	return &net.DNSError{UnwrapErr: cause, Err: cause.Error(), Name: name, IsNotFound: errors.Is(cause, ErrBadName)}
}

// gaveUp returns the error for a caller whose own context ended.
func gaveUp(name string, cause error) *net.DNSError {
	return &net.DNSError{
		UnwrapErr:   cause,
		Err:         cause.Error(),
		Name:        name,
		IsTimeout:   errors.Is(cause, context.DeadlineExceeded),
		IsTemporary: true,
	}
}

// IsAbsent reports whether err means that the name or record does not exist. Any
// other error means that there is no answer. err is an error of a Resolver or of
// net.Resolver, wrapped or not.
func IsAbsent(err error) bool {
	failure, ok := errors.AsType[*net.DNSError](err)
	return ok && failure.IsNotFound && !failure.IsTemporary && !failure.IsTimeout
}
