package arc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
)

// Verifier verifies chains. It may be used by several goroutines.
type Verifier struct {
	Resolver dkim.Resolver
	// Now returns the time for x=; nil means time.Now.
	Now func() time.Time
	// DNSBudget is the time for all key lookups of one message together,
	// beginning with Start; 0 means DefaultDNSBudget.
	DNSBudget time.Duration
}

// Verification is the verification of one message. It is not safe for
// concurrent use.
type Verification struct {
	dkim.Bodies // the body is written to it

	now    time.Time
	chain  chain
	broken error
	seals  []*check // by instance, the last one first
	// messages are the message signatures to verify, the last first.
	messages []*check
	keys     map[string]*key

	running sync.WaitGroup
	cancel  context.CancelFunc
}

// check is one signature that is being verified.
type check struct {
	signature *dkim.Foreign
	digest    [sha256.Size]byte
	key       *key
}

// key is written by the goroutine that looks it up, and read after it has
// ended.
type key struct{ found *dkim.Keys }

// Start takes the whole header of a message. If there is a chain, it begins to
// look up its keys. After Start, the caller writes the body to the
// Verification and must call Finish or Close, which end its goroutines. The
// end of ctx ends the lookups.
func (v *Verifier) Start(ctx context.Context, fields []dkim.Field) *Verification {
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	m := &Verification{now: now(), cancel: func() {}}
	m.chain, m.broken = readChain(fields)
	if m.broken != nil || len(m.chain) == 0 {
		return m
	}
	m.keys = make(map[string]*key)
	if m.broken = m.hashSeals(fields); m.broken != nil {
		return m
	}
	m.hashMessages(fields)
	ctx, m.cancel = context.WithTimeout(ctx, cmp.Or(v.DNSBudget, DefaultDNSBudget))
	m.running.Go(func() { m.fetch(ctx, v.Resolver) })
	return m
}

func (m *Verification) check(s *dkim.Foreign) *check {
	name := s.KeyName()
	if m.keys[name] == nil {
		m.keys[name] = new(key)
	}
	return &check{signature: s, key: m.keys[name]}
}

// hashSeals computes the hash that each seal signed. It covers all sets up to
// that of the seal, in order: the results, the message signature and the seal
// of each set. Its own seal is without the value of b= (RFC 8617 section
// 5.1.1). The hash for the next seal continues from there.
func (m *Verification) hashSeals(fields []dkim.Field) error {
	sum := sha256.New()
	var buffer []byte
	m.seals = make([]*check, len(m.chain))
	for i, l := range m.chain {
		for _, index := range []int{l.results, l.messageIndex} {
			buffer = dkim.AppendField(buffer[:0], dkim.Relaxed, fields[index])
			sum.Write(buffer)
		}
		c := m.check(l.seal)
		buffer = dkim.AppendField(buffer[:0], dkim.Relaxed, l.seal.Unsigned())
		var err error
		if c.digest, err = finished(sum, buffer[:len(buffer)-len("\r\n")]); err != nil {
			return err
		}
		m.seals[len(m.chain)-1-i] = c
		buffer = dkim.AppendField(buffer[:0], dkim.Relaxed, fields[l.sealIndex])
		sum.Write(buffer)
	}
	return nil
}

// finished returns the hash of what was written to h, followed by last. It
// does not change h.
func finished(h hash.Hash, last []byte) (sum [sha256.Size]byte, err error) {
	cloner, ok := h.(hash.Cloner)
	if !ok {
		return sum, errors.New("the hash cannot be cloned")
	}
	fork, err := cloner.Clone()
	if err != nil {
		return sum, err
	}
	fork.Write(last)
	fork.Sum(sum[:0])
	return sum, nil
}

// hashMessages computes the hashes that the message signatures signed: that of
// the last set, and of as many before it as the bound allows.
func (m *Verification) hashMessages(fields []dkim.Field) {
	size := 0
	for _, f := range fields {
		size += len(f.Name) + len(f.Value)
	}
	header := dkim.NewHeaderHash(fields)
	work := 0
	for i := len(m.chain) - 1; i >= 0 && (work == 0 || work+size <= maxHeaderWork); i-- {
		c := m.check(m.chain[i].message)
		c.digest = header.Sum(c.signature)
		m.messages = append(m.messages, c)
		m.Want(c.signature.Body())
		work += size
	}
}

// fetch looks up the keys. It begins with that of the last seal. If the last
// seal does not verify, the other keys are not needed.
func (m *Verification) fetch(ctx context.Context, r dkim.Resolver) {
	last := m.seals[0]
	last.key.found = dkim.LookupKeys(ctx, r, last.signature.KeyName())
	if status, _, _ := last.key.found.Verify(last.signature, last.digest); status != dkim.Pass {
		return
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	slots := make(chan struct{}, maxLookups)
	for name, k := range m.keys {
		if k.found != nil {
			continue
		}
		slots <- struct{}{}
		workers.Go(func() {
			k.found = dkim.LookupKeys(ctx, r, name)
			<-slots
		})
	}
}

// Close cancels the verification: it stops the lookups and waits for them.
func (m *Verification) Close() {
	m.cancel()
	m.running.Wait()
}

// Finish ends the body, waits for the lookups, and returns the result. The
// lookups end with the budget at the latest. It must be called once.
func (m *Verification) Finish() Result {
	m.running.Wait()
	m.cancel()
	switch {
	case m.broken != nil:
		return Result{Status: Fail, Reason: m.broken.Error()}
	case len(m.chain) == 0:
		return Result{Status: None}
	}
	r := Result{Status: Pass, Sealer: m.chain[len(m.chain)-1].Sealer}
	for _, l := range m.chain {
		r.Sets = append(r.Sets, l.Set)
	}
	m.verifyChain(&r)
	return r
}

// verifyChain applies steps 4 to 6 of RFC 8617 section 5.2.
func (m *Verification) verifyChain(r *Result) {
	n := len(m.chain)
	for i, c := range m.seals {
		if !r.require(c, fmt.Sprintf("seal %d", n-i)) {
			return
		}
	}
	sums := m.Sums()
	last := m.messages[0]
	name := fmt.Sprintf("message signature %d", n)
	if !last.signature.MatchesBody(sums) {
		r.fail(name + ": body hash did not verify")
		return
	}
	if m.expired(last) {
		r.fail(name + ": expired")
		return
	}
	if r.require(last, name) {
		r.OldestPass = m.oldestPass(sums)
	}
}

func (m *Verification) expired(c *check) bool {
	signature := c.signature.Signature()
	return signature.Expired(m.now, 0)
}

// oldestPass verifies the message signatures before the last, beginning with
// the latest, until one does not verify.
func (m *Verification) oldestPass(sums dkim.Sums) int {
	n := len(m.chain)
	for i, c := range m.messages[1:] {
		status, _, _ := c.key.found.Verify(c.signature, c.digest)
		if status != dkim.Pass || !c.signature.MatchesBody(sums) || m.expired(c) {
			return n - i
		}
	}
	if len(m.messages) < n {
		return n - len(m.messages) + 1
	}
	return 0
}

// require fails the chain unless a signature verifies.
func (r *Result) require(c *check, name string) bool {
	status, reason, err := c.key.found.Verify(c.signature, c.digest)
	if status == dkim.Pass {
		return true
	}
	r.fail(name + ": " + reason)
	r.Temporary, r.Err = status == dkim.TempError, err
	return false
}

func (r *Result) fail(reason string) {
	r.Status, r.Reason = Fail, reason
}
