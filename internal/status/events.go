package status

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

// How often a page gets news.
const (
	localEvery = 2 * time.Second
	peerEvery  = 4 * time.Second
	// pageRetry is the time after which a browser that has lost its connection
	// connects again.
	pageRetry = 3 * time.Second
)

// hello is the first event of a page.
type hello struct {
	Version string                   `json:"version"`
	Sources []string                 `json:"sources"` // this daemon, and its peers
	Reasons map[record.Reason]string `json:"reasons"` // their meanings
	Most    int                      `json:"most"`    // records that are listed
}

// news is each further event: the answer of one source.
type news struct {
	Source int    `json:"source"`
	Error  string `json:"error,omitempty"`
	*Part
}

// events sends news to a page until the page is closed.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	asked, err := parseWant(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	asked.privacy = asked.privacy || s.o.Privacy // of peers too
	select {
	case s.pages <- struct{}{}:
		defer func() { <-s.pages }()
	default:
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open already; close one", maxPages))
		return
	}
	out := stream{w: w, control: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	if out.begin(s.hello()) != nil {
		return
	}
	all := make(chan news)
	var sources sync.WaitGroup
	defer sources.Wait()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	sources.Go(func() { follow(ctx, all, 0, asked, localEvery, s.askSelf) })
	for i, p := range s.o.Peers {
		sources.Go(func() {
			follow(ctx, all, i+1, asked, peerEvery, func(ctx context.Context, w want) (Part, error) { return s.askPeer(ctx, p, w) })
		})
	}
	for {
		select {
		case n := <-all:
			if out.send("news", n) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) askSelf(_ context.Context, w want) (Part, error) {
	return s.part(time.Now(), w), nil
}

func (s *Server) hello() hello {
	h := hello{Version: s.o.Version, Sources: []string{s.o.Daemon + " on " + s.o.Host}, Reasons: record.Meanings(), Most: maxRecords}
	for _, p := range s.o.Peers {
		h.Sources = append(h.Sources, p.String())
	}
	return h
}

// follow asks a source repeatedly, each time for the records after the last one.
func follow(ctx context.Context, to chan<- news, source int, w want, every time.Duration, ask func(context.Context, want) (Part, error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		n := news{Source: source}
		part, err := ask(ctx, w)
		if err != nil {
			n.Error = err.Error()
		} else {
			n.Part = &part
			w.run, w.after = part.Log.Run, part.Log.Next
		}
		select {
		case to <- n:
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// stream writes server-sent events. A client that does not read is disconnected.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s stream) begin(h hello) error {
	// The request was read; from now on the server only writes.
	if err := s.control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "retry: %d\n", pageRetry.Milliseconds()); err != nil {
		return err
	}
	return s.send("hello", h)
}

// send writes one event. JSON has no line breaks.
func (s stream) send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, data); err != nil {
		return err
	}
	return s.control.Flush()
}
