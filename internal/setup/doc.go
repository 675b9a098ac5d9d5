// Package setup attaches Postern to a Postfix that runs, and takes it off again.
//
// The work goes through these steps: read the settings of Postfix (postfix.go,
// service.go); find the programs that are attached to it today (peers.go, and a file
// for each kind of program); plan the changes (plan.go, attach.go, settings.go); print
// the plan (print.go); apply it or undo it (apply.go, undo.go). The journal
// (journal.go) records what is needed to undo.
//
// Invariants:
//
//   - Reading changes nothing. A plan is data: the plan that is printed is applied.
//   - Postfix is read through postconf(1). Its files are changed by postconf on a copy,
//     which then takes the place of the file in one step.
//   - Before the first change the journal holds every file as it was and as it will
//     be. It is enough to undo a run that was cut short anywhere.
package setup
