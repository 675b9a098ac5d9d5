// Package postfixtest runs a private Postfix, and daemons that it asks.
//
// A private Postfix has its own configuration, queue, data directory and log below one
// temporary directory. It listens on 127.0.0.1 only: an MX service, a submission
// service whose logins a private Dovecot checks, and other services that a test asks
// for. Mail that Postfix accepts goes to a sink inside this process. So a test can wait
// for a delivery, and sees the envelope and the bytes as cleanup(8) left them.
//
// Invariants:
//   - No file, process or port of the system's own Postfix or Dovecot is touched. Both
//     may run, and several private ones at the same time.
//   - Every process that was started ends with Stop, with a Start that failed, and with
//     the process that called Start.
//   - Nothing waits by sleeping: a wait ends with the event, its context, or the
//     end of the process that should have caused the event.
//
// It needs root (Postfix does not start without), Postfix 3.6 or newer and Dovecot 2.3.
package postfixtest
