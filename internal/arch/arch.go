// Package arch holds no code: its test asserts which package may import which,
// so that bytes, request, decision, action and report stay apart.
//
// The table in arch_test.go is the whole rule. A package that no row names
// fails the test: whoever adds one says where it is.
package arch
