// Package daemon has what a process needs to run as a service, with or without
// systemd: sockets, an accept loop, signals, readiness and privileges.
//
// A daemon calls these functions in this order: [ParseEndpoint] parses the
// operator's settings into endpoints, [Listen] binds all of them,
// [LookupIdentity] and [Identity.Become] give up root, [Serve] answers
// connections, and [Run] turns signals into reload and drain. Two protocols of
// systemd are supported: the descriptors of sd_listen_fds(3), which start at 3
// and are named by LISTEN_FDNAMES, and the datagrams of sd_notify(3).
//
// Invariants:
//
//   - Nothing is served before everything is bound; a failed start leaves no
//     socket behind.
//   - A unix socket has its mode and group before the first client can connect.
//   - Only a socket on which no process listens is replaced, and only our own
//     socket is removed.
//   - Sockets from systemd are never unlinked. systemd keeps them open, so
//     clients wait in the backlog while one process hands over to the next. A
//     socket that the daemon bound itself refuses clients in that time.
//   - The accept loop ends when it is asked to, never because of a temporary
//     error. A panic ends one connection.
//   - Draining is bounded by the operator's time-out. After it, connections are
//     cut.
package daemon
