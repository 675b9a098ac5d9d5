// Package daemon is what a process needs to live as a service, under systemd
// or without: sockets, an accept loop, signals, readiness and privileges.
//
// A daemon runs downwards: [ParseEndpoint] turns the operator's words into
// endpoints, [Listen] binds all of them, [LookupIdentity] and [Identity.Become]
// give up root, [Serve] answers connections and [Run] turns signals into
// reload and drain. systemd's two protocols are spoken on the way: the
// descriptors of sd_listen_fds(3), which start at 3 and are named by
// LISTEN_FDNAMES, and the datagrams of sd_notify(3).
//
// Invariants:
//
//   - Nothing is served before everything is bound; a failed start leaves no
//     socket behind.
//   - A unix socket has its mode and group before the first client can connect.
//   - Only a socket that no one answers is ever replaced, and only our own is removed.
//   - Sockets from systemd are never unlinked: systemd goes on listening
//     on them, so clients wait in the backlog while one process hands over to the
//     next. A socket that the daemon bound itself refuses clients in that time.
//   - The accept loop ends when it is told to, never because of an error that
//     can pass. A panic ends one connection.
//   - Draining has an end: the operator's time-out, then connections are cut.
package daemon
