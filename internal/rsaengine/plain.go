//go:build !openssl || !cgo

package rsaengine

const builtIn = false

func openLibrary() (library, string, error) { return nil, "", ErrNotBuiltIn }
