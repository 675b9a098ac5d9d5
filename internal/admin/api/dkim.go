package api

// DKIMKeys asks for the signing keys; the answer is a []KeyStatus.
const DKIMKeys = "dkim.keys"

// KeyStatus is one private key of the running daemon, in the answer to
// "dkim.keys".
type KeyStatus struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Bits      int    `json:"bits,omitempty"` // of RSA
	Path      string `json:"path"`
	Signs     bool   `json:"signs"`
	DNS       string `json:"dns,omitempty"` // "" when the DNS is not asked: see --dkim-require-dns
	// Error is why a file, folder or line is not used. The fields about a key are
	// then empty.
	Error string `json:"error,omitempty"`
}
