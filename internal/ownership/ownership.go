// Package ownership answers: may this login use this envelope sender?
//
// The answer comes from Postfix's own tables. Owner tables have the form of
// smtpd_sender_login_maps: the result of a sender's look-up is a list of logins.
// Alias tables have that of virtual_alias_maps: a login owns every address that
// is delivered to it directly. A login may also own its own address.
//
// One table is asked in Postfix's order and its first entry counts: user@domain,
// the same without an address extension, user and user without the extension if
// the domain is local, @domain. Pattern tables are asked with the full address
// only. Several tables are a union: what one of them grants, none takes away.
//
// Invariants:
//   - a table that fails makes the answer an error ("could not tell") unless
//     another one grants the sender: a failure never turns into yes or no;
//   - logins and local parts are compared ignoring case by Unicode's rules, their
//     domains as A-labels;
//   - the package keeps no state between questions, logs nothing and starts no
//     goroutine; tables that live in files are immutable, and a reload builds new
//     ones.
package ownership
