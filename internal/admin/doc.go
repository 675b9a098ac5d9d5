// Package admin is how an administrator's command asks a running daemon.
//
// The protocol is lines of JSON over a unix socket, one request a connection.
// The client writes {"v":1,"command":"owners.check","args":{…}} and keeps its
// side open. The daemon answers any number of lines {"v":1,"progress":…} and then
// exactly one {"v":1,"result":…} or {"v":1,"error":{"code":"…","message":"…"}},
// and closes. A version that the daemon does not speak is answered with
// an error that names the one it does.
//
// Invariants:
//
//   - Who may connect may ask everything: the mode and group of the socket and
//     of its directory are the access control, and there is no other.
//   - Every line, connection and command is bounded in size, number or time.
//   - A client that goes away, or writes anything after its request, ends the
//     context of its command.
//   - A command that panics answers its client with an error and harms no one else.
package admin
