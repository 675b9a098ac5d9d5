//go:build !race

package postfixtest

// RaceEnabled is true if this program has the race detector. What Binaries builds then
// has it too.
const RaceEnabled = false
