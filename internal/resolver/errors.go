package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/miekg/dns"
)

// Causes, found with [errors.Is] in the [net.DNSError] that every method
// returns. NXDomain, ServFail, Refused and the other codes are found likewise.
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

// The codes that callers tell apart.
const (
	NoError  RCode = dns.RcodeSuccess
	FormErr  RCode = dns.RcodeFormatError
	ServFail RCode = dns.RcodeServerFailure
	NXDomain RCode = dns.RcodeNameError
	NotImp   RCode = dns.RcodeNotImplemented
	Refused  RCode = dns.RcodeRefused
	badVers  RCode = dns.RcodeBadVers
)

// Error names the code as dig does.
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

// failKind says whose failure it was, and so what follows from it.
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

// failure is a lookup, or one try of it, that could not tell.
type failure struct {
	kind   failKind
	cause  error
	server string
}

// kept reports whether the cache may remember f. Only what a server did or
// failed to do is kept: an unreachable one costs nothing to ask again.
func (f *failure) kept() bool { return f.kind == failAnswer || f.kind == failSilent }

// hidden reports whether nothing came from the server.
func (f *failure) hidden() bool {
	return f.kind == failSilent || f.kind == failCrowded || f.kind == failUnreachable
}

// dnsError is f for a caller that asked for name.
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

// worse returns the failure that says more: what a server said goes before
// its silence, and what came later before what came first.
func worse(first, later *failure) *failure {
	if first != nil && first.kind == failAnswer && later.kind != failAnswer {
		return first
	}
	return later
}

// unreachable keeps of a socket's error what the system said.
func unreachable(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		err = number
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// absent is the error for a proven absence: cause is NXDomain or ErrNoData.
func absent(name string, cause error) *net.DNSError {
	return &net.DNSError{UnwrapErr: cause, Err: cause.Error(), Name: name, IsNotFound: true}
}

// unaskable is the permanent error for a name or type that is never sent.
func unaskable(name string, cause error) *net.DNSError {
	return &net.DNSError{UnwrapErr: cause, Err: cause.Error(), Name: name, IsNotFound: errors.Is(cause, ErrBadName)}
}

// gaveUp is the error for a caller whose own context ended.
func gaveUp(name string, cause error) *net.DNSError {
	return &net.DNSError{
		UnwrapErr:   cause,
		Err:         cause.Error(),
		Name:        name,
		IsTimeout:   errors.Is(cause, context.DeadlineExceeded),
		IsTemporary: true,
	}
}

// IsAbsent recognises an answer, that there is no such name or record, from the lack of
// one. It takes the errors of a Resolver and of net.Resolver, wrapped or not.
func IsAbsent(err error) bool {
	failure, ok := errors.AsType[*net.DNSError](err)
	return ok && failure.IsNotFound && !failure.IsTemporary && !failure.IsTimeout
}
