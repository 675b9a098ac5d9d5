//go:build race

package e2e

// raceFactor is how much longer a daemon with the race detector in it may take.
const raceFactor = 4
