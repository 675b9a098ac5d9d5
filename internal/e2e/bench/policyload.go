package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// policyRequest has the attributes of Postfix 3.7. The %s are helo, sender, recipient,
// client address, instance and login.
const policyRequest = `request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=%s
client_name=unknown
client_port=39284
reverse_client_name=unknown
server_address=127.0.0.1
server_port=587
helo_name=%s
sender=%s
recipient=%s
recipient_count=0
queue_id=
instance=%s
size=2048
etrn_domain=
stress=
sasl_method=PLAIN
sasl_username=%s
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=

`

// load is the requests that a policy client sends.
type load struct {
	conns    int
	requests int // of all connections together
	// request returns the i-th request of connection c. It is called before the clock
	// starts for i below distinct, and these requests are sent repeatedly. If distinct
	// is 0, it is called when each request is sent.
	request  func(c, i int) []byte
	distinct int
	// every is the time from one request to the next, on whichever connection is free; 0
	// if each connection sends as soon as it has its reply. For sendLean.
	every time.Duration
	// echoed is set if the server writes the requests back.
	echoed bool
}

// replyTimeout is how long Postfix waits for a reply by default
// (smtpd_policy_service_timeout).
const replyTimeout = 100 * time.Second

// latencies are the times between requests and their replies, sorted.
type latencies []time.Duration

func (l latencies) quantile(q float64) time.Duration {
	return l[min(len(l)-1, int(q*float64(len(l))))]
}

// send sends the load to network and address. It counts the replies by the first word
// of the action.
func (l load) send(ctx context.Context, network, address string) (latencies, map[string]int, error) {
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		all     latencies
		actions = map[string]int{}
		errs    []error
	)
	ready := make(chan struct{})
	for c := range l.conns {
		requests := make([][]byte, l.distinct)
		for i := range requests {
			requests[i] = l.request(c, i)
		}
		wg.Go(func() {
			<-ready
			took, counted, err := l.one(ctx, network, address, func(i int) []byte {
				if l.distinct == 0 {
					return l.request(c, i)
				}
				return requests[i%l.distinct]
			})
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			for action, n := range counted {
				actions[action] += n
			}
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	close(ready)
	wg.Wait()
	slices.Sort(all)
	return all, actions, errors.Join(errs...)
}

// one sends the load of one connection.
func (l load) one(ctx context.Context, network, address string, next func(i int) []byte) (latencies, map[string]int, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var took latencies
	actions := map[string]int{}
	replies := bufio.NewReader(conn)
	for i := range l.requests / l.conns {
		request := next(i)
		start := time.Now()
		if err := conn.SetDeadline(start.Add(replyTimeout)); err != nil {
			return took, actions, err
		}
		if _, err := conn.Write(request); err != nil {
			return took, actions, err
		}
		if l.echoed {
			_, err = replies.Discard(len(request))
		} else {
			err = readReply(replies, actions)
		}
		if err != nil {
			return took, actions, fmt.Errorf("reply %d: %w", i, err)
		}
		took = append(took, time.Since(start))
	}
	return took, actions, nil
}

// readReply reads one reply and counts the first word of its action.
func readReply(r *bufio.Reader, actions map[string]int) error {
	action, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	word, _, _ := bytes.Cut(bytes.TrimSuffix(action[len("action="):], []byte("\n")), []byte(" "))
	actions[string(word)]++
	_, err = r.ReadSlice('\n')
	return err
}
