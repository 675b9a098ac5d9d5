//go:build !openssl || !cgo

package rsaengine

const builtIn = false

func openLibrary() (library, string, error) { return nil, "", ErrNotBuiltIn }

// Tune does nothing: Go chooses the instructions itself.
func Tune() {}
