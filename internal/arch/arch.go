// Package arch holds no code. Its test checks which package may import which, so that
// bytes, request, decision, action and report stay apart.
//
// The table in arch_test.go is the complete rule. The test fails for a package that is
// not in the table, so a new package needs a row there.
package arch
