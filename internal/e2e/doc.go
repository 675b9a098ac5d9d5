// Package e2e runs a small mail site around a private Postfix: users, maps,
// postern-policyd, and the lines that attach it. Its tests drive the real daemons
// through the real Postfix. "make try" shows the same site to a person.
package e2e
