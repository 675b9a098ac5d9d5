// Package admin has the protocol by which the postern command asks a running
// daemon.
//
// The protocol is lines of JSON over a unix socket, with one request for each
// connection. The client writes {"v":1,"command":"owners.check","args":{…}} and
// keeps its side open. The daemon sends any number of lines
// {"v":1,"progress":…}, then exactly one line {"v":1,"result":…} or
// {"v":1,"error":{"code":"…","message":"…"}}, and closes the connection. When the
// daemon does not know the version of a request, it answers with an error that
// has its own version.
//
// Invariants:
//
//   - Everyone who may connect may use all commands. The only access control is
//     the mode and group of the socket and of its directory.
//   - Every line, connection and command is bounded in size, number or time.
//   - When a client disconnects, or writes anything after its request, the
//     context of its command ends.
//   - When a command panics, its client gets an error, and nothing else is
//     affected.
package admin
