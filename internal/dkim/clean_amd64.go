package dkim

import processor "golang.org/x/sys/cpu"

// hasCleanBlocks is whether cleanBlocks can be used.
var hasCleanBlocks = processor.X86.HasAVX2

// cleanBlocks returns the length of a beginning of p, in whole blocks of 64 octets, that
// relaxed canonicalization does not change. It ends at the latest where fewer than 65
// octets are left. It needs AVX2, and takes a fraction of the time of cleanWords.
//
//go:noescape
func cleanBlocks(p []byte) int
