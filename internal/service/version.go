package service

import "runtime/debug"

// version is the release that this tree is becoming.
const version = "0.1.0"

// packaged is the first part of the commit that a package was built from. The linker
// sets it, because what Go notes by itself depends on the kind of the checkout.
var packaged string

// Version names the release, and the revision it was built from if that is
// known.
func Version() string {
	if r := revision(); r != "" {
		return version + "+" + r
	}
	return version
}

// revision is the first part of the commit that the binary was built from, ""
// when the build did not note it.
func revision() string {
	if packaged != "" {
		return packaged
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return ""
}
