// Package status serves one page about a daemon: its version and settings, counts
// of its decisions, the health of its backends, and the last decisions with their
// reasons. With peers the page shows several daemons and hosts.
//
// The data takes this way through the files: chart.go counts decisions by time,
// numbers.go reads the metrics, about.go asks the daemon by admin commands, and
// snapshot.go puts them together. filter.go, privacy.go and records.go choose the
// last records and remove addresses from them. peers.go asks other daemons.
// events.go sends all of it repeatedly to open pages. guard.go decides who may
// send requests. page/ is the page.
//
// Records contain what strangers have sent, and pages of strangers can make
// browsers send requests. Invariants:
//
//   - It only reads: no request changes anything.
//   - A request whose Host is not a name of this page, or whose Origin is another
//     page, is refused. So a stranger's name that has the address of this server
//     cannot be used.
//   - The page and its data are separate. No text of a record becomes markup: the
//     page only sets text, and its Content-Security-Policy forbids all scripts
//     and styles except its own two files.
//   - Outside loopback nothing is served without the token.
//   - Clients, answers, filters and the answers of peers are bounded. A client without
//     the token cannot keep others out, see [httplimit]. While no page is open, nothing
//     is read for pages.
package status

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/httplimit"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/record"
)

// Bounds of the server.
const (
	maxConnections = 64
	maxPages       = 16 // that are open and update themselves
	maxHeaderBytes = 16 << 10
	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second
	writeTimeout   = 15 * time.Second // of one answer, or of one event
	idleTimeout    = 2 * time.Minute
)

//go:embed page
var page embed.FS

// Options describe the daemon and its page.
type Options struct {
	Daemon  string // policyd, milterd
	Host    string // the name of this machine
	Version string
	Started time.Time

	Metrics prometheus.Gatherer
	Ready   func() (ready bool, report string)
	Records *logging.Recent
	Run     string // identifies the process whose records the numbers count
	// Commands returns the admin commands. It is first called for a request of a
	// page.
	Commands func() map[string]admin.Handler

	Peers   []Peer
	Names   []string // under which the page is reached, beside addresses, localhost and Host
	Privacy bool
	Token   config.Secret // empty for none

	Log *log.Logger // for problems with clients; nil means the standard logger
}

// Server answers browsers. Make it with [New]. It is a [record.Sink], which must
// receive the same records as Options.Records.
type Server struct {
	o       Options
	chart   *chart
	about   cache[About]
	senders cache[*api.DMARCSendersResult]
	peers   *http.Client

	// life ends with Shutdown, and with it all work for pages.
	life  context.Context
	end   context.CancelFunc
	pages chan struct{} // a place for each page that is open

	mu      sync.Mutex
	serving []*http.Server // guarded by mu
	last    Snapshot       // guarded by mu
	lastAt  time.Time      // guarded by mu
}

// New returns a server.
func New(o Options) *Server {
	s := &Server{o: o, chart: newChart(), pages: make(chan struct{}, maxPages), peers: newPeerClient()}
	s.about = cache[About]{every: aboutEvery, timeout: aboutTimeout, wait: aboutWait}
	s.about.answer.Settings = []api.Setting{} // the page needs a list before the first answers
	s.senders = cache[*api.DMARCSendersResult]{every: sendersEvery, timeout: sendersTimeout}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Record implements [record.Sink].
func (s *Server) Record(r *record.Record, at time.Time) { s.chart.Record(r, at) }

// handler answers the requests of a listener.
func (s *Server) handler(local bool) http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(onlyFiles{files}))
	mux.HandleFunc("GET /api/status", s.status)
	mux.HandleFunc("GET /api/events", s.events)
	return guard{local: local, names: s.names(), token: s.o.Token, next: mux}
}

// names returns the allowed names of the page, for a listener outside loopback.
func (s *Server) names() []string { return append([]string{s.o.Host}, s.o.Names...) }

// Serve answers on ln, which it owns from now on, until Shutdown; it then returns
// nil. A listener outside loopback needs a token.
func (s *Server) Serve(ln net.Listener) error {
	local := Local(ln.Addr())
	if !local && s.o.Token.Empty() {
		return errors.Join(ErrNoToken, ln.Close())
	}
	server := &http.Server{
		Handler:           s.handler(local),
		ErrorLog:          s.o.Log,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		BaseContext:       func(net.Listener) context.Context { return s.life },
	}
	if !s.begin(server) {
		return ln.Close()
	}
	err := httplimit.Serve(server, ln, maxConnections)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the status page on %s: %w", ln.Addr(), err)
}

// begin adds a server to those that Shutdown stops. It returns false after
// Shutdown.
func (s *Server) begin(server *http.Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return false
	}
	s.serving = append(s.serving, server)
	return true
}

// Shutdown ends the open pages, stops accepting and waits for the running
// answers. When ctx ends first, it cuts them off and returns an error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.end()
	s.mu.Lock()
	serving := s.serving
	s.mu.Unlock()
	var errs []error
	for _, server := range serving {
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop the status page: %w", err), server.Close())
		}
	}
	errs = append(errs, s.about.end(ctx), s.senders.end(ctx))
	s.peers.CloseIdleConnections()
	return errors.Join(errs...)
}

// ErrNoToken means that the network could read the page.
var ErrNoToken = errors.New("the status page shows who writes to whom: outside loopback it needs status-token-file")

// Local reports whether only this machine can reach an address.
func Local(addr net.Addr) bool {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// onlyFiles is an fs.FS without listings of folders.
type onlyFiles struct{ fs.FS }

// Open implements fs.FS.
func (o onlyFiles) Open(name string) (fs.File, error) {
	if name == "." {
		return o.FS.Open(name) // FileServer then looks for index.html
	}
	info, err := fs.Stat(o.FS, name)
	if err == nil && info.IsDir() {
		return nil, fs.ErrNotExist
	}
	return o.FS.Open(name)
}
