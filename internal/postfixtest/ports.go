package postfixtest

import "github.com/postern-mail/postern/internal/freeport"

// FreeAddr returns "127.0.0.1:PORT" where nothing listens now. The port belongs to this
// process until it ends.
func FreeAddr() (string, error) { return freeport.Addr() }
