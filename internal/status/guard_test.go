package status

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/config"
)

const testToken = "0123456789abcdef0123"

func TestGuard(t *testing.T) {
	const local, wide = true, false
	tests := []struct {
		name   string
		local  bool
		host   string
		header string // "Name: value"
		method string
		token  bool
		want   int
	}{
		{"loopback", local, "127.0.0.1:9147", "", "GET", false, 200},
		{"loopback through a tunnel", local, "localhost:8080", "", "GET", false, 200},
		{"IPv6", local, "[::1]:9147", "", "GET", false, 200},
		{"HEAD", local, "127.0.0.1", "", "HEAD", false, 200},
		{"a name that a stranger points here", local, "evil.example:9147", "", "GET", false, 421},
		{"a name below localhost", local, "localhost.evil.example", "", "GET", false, 421},
		{"no name", local, "", "", "GET", false, 421},
		{"an address that is not loopback", local, "192.0.2.1:9147", "", "GET", false, 421},
		{"a name of the settings", local, "MX.example.org", "", "GET", false, 200},
		{"an address, with the token", wide, "192.0.2.1:9147", "Authorization: Bearer " + testToken, "GET", true, 200},
		{"a stranger's name, with the token", wide, "evil.example", "Authorization: Bearer " + testToken, "GET", true, 421},
		{"no token", wide, "192.0.2.1", "", "GET", true, 401},
		{"a wrong token", wide, "192.0.2.1", "Authorization: Bearer x" + testToken, "GET", true, 401},
		{"half a token", wide, "192.0.2.1", "Authorization: Bearer 0123456789", "GET", true, 401},
		{"an empty token", wide, "192.0.2.1", "Authorization: Bearer ", "GET", true, 401},
		{"the token on loopback too", local, "127.0.0.1", "", "GET", true, 401},
		{"own origin", local, "127.0.0.1:9147", "Origin: http://127.0.0.1:9147", "GET", false, 200},
		{"another origin", local, "127.0.0.1:9147", "Origin: http://evil.example", "GET", false, 403},
		{"another port", local, "127.0.0.1:9147", "Origin: http://127.0.0.1:80", "GET", false, 403},
		{"an origin that is hidden", local, "127.0.0.1:9147", "Origin: null", "GET", false, 403},
		{"a script of another page", local, "127.0.0.1:9147", "Sec-Fetch-Site: cross-site", "GET", false, 403},
		{"a script of another port", local, "127.0.0.1:9147", "Sec-Fetch-Site: same-site", "GET", false, 403},
		{"typed by a person", local, "127.0.0.1:9147", "Sec-Fetch-Site: none", "GET", false, 200},
		{"POST", local, "127.0.0.1:9147", "", "POST", false, 405},
		{"OPTIONS", local, "127.0.0.1:9147", "", "OPTIONS", false, 405},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := guard{local: tt.local, names: []string{"mx.example.org"}, next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "page")
			})}
			if tt.token {
				g.token = config.NewSecret(testToken)
			}
			r := httptest.NewRequest(tt.method, "/api/status", nil)
			r.Host = tt.host
			if name, value, ok := strings.Cut(tt.header, ": "); ok {
				r.Header.Set(name, value)
			}
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%d, want %d: %s", w.Code, tt.want, w.Body)
			}
			if w.Code != 200 && strings.Contains(w.Body.String(), "page\n") {
				t.Errorf("%s", w.Body)
			}
			if closes := w.Header().Get("Connection") == "close"; closes != (w.Code != 200) {
				t.Errorf("status %d, and the connection closes: %v", w.Code, closes)
			}
			if got := w.Header().Get("Content-Security-Policy"); got != policy || strings.Contains(got, "unsafe") {
				t.Errorf("Content-Security-Policy: %s", got)
			}
			if w.Header().Get("Set-Cookie") != "" || w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%v", w.Header())
			}
		})
	}
}

// The token is taken as a password too: browsers ask for that.
func TestTokenAsPassword(t *testing.T) {
	g := guard{token: config.NewSecret(testToken)}
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth("anyone", testToken)
	if !g.authorised(r) {
		t.Error("refused")
	}
	r.SetBasicAuth(testToken, "")
	if g.authorised(r) {
		t.Error("the user is not the password")
	}
}

// A link of another page may lead to the page, and to nothing else.
func TestLinkFromAnotherPage(t *testing.T) {
	for path, want := range map[string]bool{"/": true, "/api/status": false} {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
		if got := sameOrigin(r); got != want {
			t.Errorf("%s: %t", path, got)
		}
		r.Header.Set("Sec-Fetch-Dest", "iframe")
		if sameOrigin(r) {
			t.Errorf("%s in a frame", path)
		}
	}
}
