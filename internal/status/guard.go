package status

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/config"
)

// MinToken is the length of the shortest token.
const MinToken = 16

// policy is the Content-Security-Policy of every answer. It forbids everything
// inline, and makes browsers refuse to turn text into markup.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// guard refuses requests that are not allowed, and adds headers for browsers to
// every answer.
type guard struct {
	local bool // the listener is on loopback, or a unix socket
	names []string
	token config.Secret
	next  http.Handler
}

// ServeHTTP implements http.Handler.
func (g guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A client that does not read its answer must not hold its place.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch {
	case !g.named(r.Host):
		refuse(w, http.StatusMisdirectedRequest, "this name is not one of this page; use its address, or add the name to status-names")
	case !sameOrigin(r):
		refuse(w, http.StatusForbidden, "another page may not ask this one")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "this page is only read")
	case !g.authorised(r):
		h.Set("WWW-Authenticate", `Basic realm="Postern: any user, the token as password", charset="UTF-8"`)
		refuse(w, http.StatusUnauthorized, "the token is needed, as a bearer token or as the password of any user")
	default:
		g.next.ServeHTTP(w, r)
	}
}

// refuse answers a request with an error, and ends its connection: a client without the
// token must not keep a place by asking again.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n")) // the client may be gone; nothing to do then
}

// named reports whether a Host is one of the allowed names of the page. With DNS
// rebinding, a stranger's name has the address of this server, and then that name
// is the Host.
func (g guard) named(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.ToLower(strings.Trim(name, "[]")), ".")
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.Unmap().IsLoopback() || !g.local
	}
	return name == "localhost" || name != "" && slices.ContainsFunc(g.names, func(own string) bool { return strings.EqualFold(own, name) })
}

// sameOrigin reports whether a request comes from the page itself, from an
// address that a person has typed, or from another program than a browser.
func sameOrigin(r *http.Request) bool {
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return true
	}
	// Of requests from another page, only a link to this page is allowed.
	return r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// authorised reports whether a request has the token. It takes the same time for
// every wrong token.
func (g guard) authorised(r *http.Request) bool {
	if g.token.Empty() {
		return true
	}
	given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !isBearer {
		_, given, _ = r.BasicAuth()
	}
	want, got := sha256.Sum256([]byte(g.token.Reveal())), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}
