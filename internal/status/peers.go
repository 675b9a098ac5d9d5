package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"time"
)

// Bounds of questions to peers.
const (
	// MaxPeers bounds the daemons on one page.
	MaxPeers     = 32
	peerTimeout  = 5 * time.Second
	maxPeerBytes = 8 << 20
	maxPeerConns = 4 // to each
)

// Peer is another daemon with a status page.
type Peer struct{ url *url.URL }

// ParsePeer parses the address of a peer's page: http://192.0.2.7:9147.
func ParsePeer(text string) (Peer, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return Peer{}, fmt.Errorf("%.80q is no address of a page; write http://HOST:PORT", text)
	case u.User != nil:
		return Peer{}, errors.New("the address of a peer has no user and no password; the token is in status-token-file")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return Peer{}, fmt.Errorf("%.80q is no address of a page; write http://HOST:PORT", text)
	}
	return Peer{&url.URL{Scheme: u.Scheme, Host: u.Host}}, nil
}

// String returns the address.
func (p Peer) String() string { return p.url.String() }

// newPeerClient returns a client that follows no redirection and uses no proxy
// from the environment, because both would send the token to another server.
func newPeerClient() *http.Client {
	return &http.Client{
		Timeout:       peerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: peerTimeout}).DialContext,
			MaxConnsPerHost:        maxPeerConns,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        idleTimeout,
			TLSHandshakeTimeout:    peerTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
	}
}

// askPeer returns the state of a peer and its records.
func (s *Server) askPeer(ctx context.Context, p Peer, w want) (Part, error) {
	u := *p.url
	u.Path, u.RawQuery = "/api/status", w.query().Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Part{}, err
	}
	if !s.o.Token.Empty() {
		r.Header.Set("Authorization", "Bearer "+s.o.Token.Reveal())
	}
	answer, err := s.peers.Do(r)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the address, which the page shows anyway
		}
		return Part{}, err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return Part{}, errors.New("it refuses the token; give both daemons the same status-token-file")
	case http.StatusMisdirectedRequest:
		return Part{}, errors.New("it does not know the name that it is asked by; write its address, or add the name to its status-names")
	default:
		return Part{}, fmt.Errorf("it answers %s; check that the address is that of a status page", answer.Status)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxPeerBytes+1))
	if err != nil {
		return Part{}, err
	}
	if len(body) > maxPeerBytes {
		return Part{}, errors.New("its answer is too long")
	}
	var part Part
	if err := json.Unmarshal(body, &part); err != nil || !part.complete() {
		return Part{}, errors.New("its answer is not that of a status page")
	}
	if part.Log.Run == s.o.Run {
		return Part{}, errors.New("it is this daemon itself, which would be counted twice; take it out of status-peers")
	}
	return part, nil
}

// complete fills in the lists that the answer of a peer does not have, because the page
// relies on them: another release may leave some out. It reports whether the rest has
// the form that the page can show.
func (p *Part) complete() bool {
	fillLists(reflect.ValueOf(p).Elem())
	isRecord := func(line json.RawMessage) bool { return len(line) > 0 && line[0] == '{' }
	return p.Status.Daemon != "" && p.Status.Hour.fit(minute, minutes) && p.Status.Day.fit(quarter, quarters) &&
		len(p.Log.Records) <= maxRecords && !slices.ContainsFunc(p.Log.Records, func(line json.RawMessage) bool { return !isRecord(line) })
}

// fit reports whether the steps are n of this length.
func (s *Steps) fit(step time.Duration, n int) bool {
	return s.Step == int(step/time.Second) && len(s.Verdicts) == n
}

// fillLists makes an empty list of each list or map that is null, in all that v holds.
func fillLists(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fillLists(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fillLists(v.Field(i))
			}
		}
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return // JSON that was not read
		}
		if v.IsNil() {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
		for i := range v.Len() {
			fillLists(v.Index(i))
		}
	}
}
