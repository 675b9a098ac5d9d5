package redisstore_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/redisstore"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// mover moves the slot of a store's keys from one master of a Cluster to another.
type mover struct {
	t        *testing.T
	slot     int64
	from, to *redis.Client
	fromID   string
	toID     string
}

func newMover(t *testing.T, c *redistest.Cluster, tag string) *mover {
	t.Helper()
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{c.Nodes[0].Addr}})
	t.Cleanup(func() { _ = cluster.Close() })
	m := &mover{t: t}
	var err error
	if m.slot, err = cluster.ClusterKeySlot(t.Context(), tag).Result(); err != nil {
		t.Fatal(err)
	}
	if m.from, err = cluster.MasterForKey(t.Context(), tag); err != nil {
		t.Fatal(err)
	}
	other := "{other}"
	for n := 0; ; n++ {
		if m.to, err = cluster.MasterForKey(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		if m.to.Options().Addr != m.from.Options().Addr {
			break
		}
		other = "{other" + strconv.Itoa(n) + "}"
	}
	m.fromID, m.toID = m.id(m.from), m.id(m.to)
	return m
}

func (m *mover) id(node *redis.Client) string {
	m.t.Helper()
	id, err := node.Do(m.t.Context(), "cluster", "myid").Text()
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

func (m *mover) do(node *redis.Client, args ...any) {
	m.t.Helper()
	if err := node.Do(m.t.Context(), args...).Err(); err != nil {
		m.t.Fatalf("%v: %v", args, err)
	}
}

// begin opens the slot on both nodes.
func (m *mover) begin() {
	m.t.Helper()
	m.do(m.to, "cluster", "setslot", m.slot, "importing", m.fromID)
	m.do(m.from, "cluster", "setslot", m.slot, "migrating", m.toID)
}

// some moves at most n keys, and reports whether there were any. A key may end meanwhile.
func (m *mover) some(n int) bool {
	m.t.Helper()
	keys, err := m.from.ClusterGetKeysInSlot(m.t.Context(), int(m.slot), n).Result()
	if err != nil {
		m.t.Fatal(err)
	}
	if len(keys) == 0 {
		return false
	}
	host, port, _ := strings.Cut(m.to.Options().Addr, ":")
	args := []any{"migrate", host, port, "", 0, 5000, "keys"}
	for _, key := range keys {
		args = append(args, key)
	}
	m.do(m.from, args...)
	return true
}

func (m *mover) end() {
	m.t.Helper()
	m.do(m.to, "cluster", "setslot", m.slot, "node", m.toID)
	m.do(m.from, "cluster", "setslot", m.slot, "node", m.toID)
}

// TestSlotMoves moves the keys to another node of a Cluster while two daemons count.
// Meanwhile the store does not answer, because no node has all keys. What is answered is
// counted once, before and after.
func TestSlotMoves(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	const most, mails, workers = 400, 320, 4
	o := redisstore.Options{URL: cluster.URL(), Timeout: patience}
	stores := []*redisstore.Store{open(t, o), open(t, o)}
	r := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: most, Window: time.Hour}
	day := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 2 * most, Window: 24 * time.Hour}
	take := func(s *redisstore.Store, txn string, step limit.Step) (limit.Answer, error) {
		op := &limit.Op{Step: step, Txn: limit.DigestOf([]byte(txn)), Part: limit.DigestOf([]byte("p")), Reserve: true, Now: time.Now(), Items: []limit.Item{
			{ID: limit.CounterID(r, "bob"), Rule: r, Amount: 1}, {ID: limit.CounterID(day, "bob"), Rule: day, Amount: 1},
		}}
		return s.Take(t.Context(), op)
	}
	// Each mail is named and ended until both are answered, as a mail server repeats a
	// request that was deferred.
	var refused sync.Map
	send := func(phase string, mails int) {
		var done sync.WaitGroup
		for n, s := range stores {
			for w := range workers {
				done.Go(func() {
					for i := range mails / workers / len(stores) {
						txn := fmt.Sprint(phase, n, w, i)
						for _, step := range []limit.Step{limit.Name, limit.End} {
							a, err := take(s, txn, step)
							for err != nil && t.Context().Err() == nil {
								if !strings.Contains(err.Error(), "moving the store's keys") {
									t.Errorf("%s: %v", txn, err)
								}
								a, err = take(s, txn, step)
							}
							if a.Refused {
								refused.Store(txn, true)
							}
						}
					}
				})
			}
		}
		done.Wait()
	}
	send("before", most/2)
	if err := stores[0].SetBlock(t.Context(), limit.Block{Login: "eve", Since: time.Now()}, false); err != nil {
		t.Fatal(err)
	}
	m := newMover(t, cluster, "{postern}:")
	m.begin()
	for _, s := range stores {
		if err := s.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "moving the store's keys") {
			t.Errorf("a probe while the slot moves: %v", err)
		}
		if all, err := s.Blocks(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("the blocks while the slot moves: %v, %v", all, err)
		}
	}
	if err := stores[1].SetBlock(t.Context(), limit.Block{Login: "mallory", Since: time.Now()}, false); err != nil {
		t.Errorf("a block while the slot moves: %v", err)
	}
	moved := make(chan struct{})
	go func() {
		defer close(moved)
		for m.some(7) {
		}
		m.end()
	}()
	send("meanwhile", mails)
	<-moved
	n := 0
	refused.Range(func(any, any) bool { n++; return true })
	if want := most/2 + mails - most; n != want {
		t.Errorf("%d of %d mails were refused, want %d", n, most/2+mails, want)
	}
	for _, rule := range []*limit.Rule{r, day} {
		if err := stores[1].Counters(t.Context(), limit.CounterID(rule, "bob").String(), time.Now(), func(c limit.Counter) error {
			if c.Used != most || c.Reserved != 0 {
				return fmt.Errorf("%+v", c)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	if all, err := stores[0].Blocks(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("the blocks after the slot has moved: %v, %v", all, err)
	}
}
