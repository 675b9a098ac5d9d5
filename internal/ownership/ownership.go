// Package ownership decides whether a login may use an envelope sender.
//
// The answer comes from Postfix's own tables. Owner tables have the form of
// smtpd_sender_login_maps: the value of a sender is a list of logins. Alias
// tables have the form of virtual_alias_maps: a login owns every address that
// is delivered to it directly. A login may also own its own address.
//
// In one table, keys are looked up in Postfix's order, and the first entry
// counts: user@domain, then the same without an address extension, then user
// and user without the extension if the domain is local, then @domain. Pattern
// tables are asked only for the full address. Several tables form a union, so a
// sender that one of them grants is not refused by another, unless
// Config.FirstMatch is set.
//
// Invariants:
//   - a table that fails makes the answer an error, unless another one grants
//     the sender; a failure is never a yes or a no;
//   - logins and local parts are compared without case, by Unicode's rules;
//     their domains are compared as A-labels;
//   - the package keeps no state between questions, logs nothing and starts no
//     goroutine; tables read from files do not change, and a reload makes new
//     ones.
package ownership
