//go:build race

package postfixtest

const raceEnabled = true
