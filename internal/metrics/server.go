package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/postern-mail/postern/internal/httplimit"
)

// Bounds of the HTTP server, so that no client can block it. It has no
// authentication, and listens on loopback by default.
const (
	maxHTTPConnections = 32
	maxScrapes         = 4 // that are gathered at a time; the text is then written from memory, so that a slow reader holds none
	maxHeaderBytes     = 16 << 10
	headerTimeout      = 5 * time.Second
	readTimeout        = 10 * time.Second
	scrapeTimeout      = 10 * time.Second
	writeTimeout       = 30 * time.Second
	idleTimeout        = 2 * time.Minute
)

// Server answers /metrics, /healthz and /readyz.
type Server struct {
	http http.Server
}

// NewServer returns a server. Errors while serving are printed to errorLog; nil
// means the standard logger.
//
//	GET /metrics  Prometheus text format
//	GET /healthz  200 while the process lives
//	GET /readyz   200 when r is ready, else 503; the conditions as text
func NewServer(m *Metrics, r *Readiness, errorLog *log.Logger) *Server {
	mux := http.NewServeMux()
	o := promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
	}
	if errorLog != nil {
		o.ErrorLog = errorLog
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, o))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, report := r.Ready()
		status := http.StatusOK
		if !ready {
			status = http.StatusServiceUnavailable
		}
		respond(w, status, report)
	})
	return &Server{http: http.Server{
		Handler:           mux,
		ErrorLog:          errorLog,
		MaxHeaderBytes:    maxHeaderBytes,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
	}}
}

func respond(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the client may have disconnected; nothing to do then
}

// Serve answers on ln, which it owns from now on, until Shutdown; it then
// returns nil.
func (s *Server) Serve(ln net.Listener) error {
	err := httplimit.Serve(&s.http, ln, maxHTTPConnections)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve metrics on %s: %w", ln.Addr(), err)
}

// Shutdown stops accepting and waits for the answers in progress; when ctx ends
// first, it cuts them off and returns its error.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop metrics server: %w", err), s.http.Close())
	}
	return nil
}
