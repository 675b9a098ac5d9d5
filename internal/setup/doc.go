// Package setup attaches Postern to a Postfix that runs, and takes it off again.
//
// The way is: what Postfix is set to (postfix.go, service.go), what is attached to it
// today (peers.go and a file for each kind of program), what should change (plan.go,
// attach.go, settings.go), how that looks (print.go), and the changes themselves
// (apply.go, undo.go) with a journal in between (journal.go).
//
// Invariants:
//
//   - Reading changes nothing. A plan is data: what is printed is what is applied.
//   - Postfix is read through postconf(1). Its files are changed by postconf on a copy,
//     which then takes the place of the file in one step.
//   - Before the first change the journal holds every file as it was and as it will
//     be. It is enough to undo a run that was cut short anywhere.
package setup
