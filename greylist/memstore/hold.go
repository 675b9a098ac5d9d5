package memstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/postern-mail/postern/greylist"
)

// The roles of the IDs of a sighting, in this order.
const (
	byDomain = iota
	byNetwork
	domainClient
	networkClient
	window // of new triplets, when it is not the network: locked, never stored
	roles
)

// ids are the IDs of one operation by their roles, "" for none.
type ids [roles]greylist.ID

func idsOf(k greylist.Key) ids {
	all := ids{byDomain: k.ByDomain(), byNetwork: k.ByNetwork(), domainClient: k.DomainClient(), networkClient: k.NetworkClient()}
	if k.Domain != "" {
		all[window] = greylist.ID(k.Window())
	}
	return all
}

// hold is the set of locked shards of one operation.
type hold struct {
	store *Store
	ids   ids
	at    [roles]int // shard of each ID, -1 for none
	hash  [roles]uint64
	order [roles]int
	n     int
}

func (s *Store) holdOf(all ids) hold {
	h := hold{store: s, ids: all}
	for role, id := range all {
		h.at[role] = -1
		if id == "" {
			continue
		}
		h.hash[role] = s.hash(id)
		h.at[role] = shardOf(h.hash[role])
		h.insert(h.at[role])
	}
	return h
}

// insert adds a shard, and keeps the shards sorted and without duplicates.
func (h *hold) insert(shard int) {
	i := 0
	for i < h.n && h.order[i] < shard {
		i++
	}
	if i < h.n && h.order[i] == shard {
		return
	}
	copy(h.order[i+1:h.n+1], h.order[i:h.n])
	h.order[i] = shard
	h.n++
}

func (h *hold) lock() {
	for _, i := range h.order[:h.n] {
		h.store.shards[i].mu.Lock()
	}
}

func (h *hold) unlock() {
	for _, i := range h.order[:h.n] {
		h.store.shards[i].mu.Unlock()
	}
}

// maxLoads bounds how often missing entries are read again. Another round is needed
// only when another request has changed the same shard meanwhile.
const maxLoads = 16

// with loads what is missing into memory, and runs f with all its shards locked.
func (s *Store) with(ctx context.Context, all ids, f func(h *hold) error) error {
	h := s.holdOf(all)
	h.lock()
	defer h.unlock()
	for range maxLoads {
		missing, ok := h.missing()
		if !ok {
			return f(&h)
		}
		sh := missing.shard
		rowID, seen := sh.away.row(missing.hash), sh.evicted
		h.unlock()
		row, ok, err := s.backing.Load(ctx, rowID)
		h.lock()
		if err != nil {
			return fmt.Errorf("read the greylist: %w", err)
		}
		if sh.away.row(missing.hash) != rowID || sh.evicted != seen {
			continue // it has been read, and perhaps changed, meanwhile
		}
		if err := s.loaded(missing, row, ok); err != nil {
			return err
		}
	}
	return errBusy
}

var errBusy = errors.New("greylist store: entries come and go too fast")

// missing returns where an entry belongs that is only in the backing; ok is false if
// there is none.
func (h *hold) missing() (p spot, ok bool) {
	for role := range h.ids {
		if h.at[role] < 0 || h.store.shards[h.at[role]].away.row(h.hash[role]) == 0 {
			continue
		}
		if p = h.spot(role); p.slot < 0 {
			return p, true
		}
	}
	return spot{}, false
}

// loaded puts a row that was read into memory. A row that is gone, or that belongs to
// another ID with the same hash, is not looked up again.
func (s *Store) loaded(p spot, row Row, ok bool) error {
	sh := p.shard
	if !ok || row.ID != p.id {
		sh.away.remove(p.hash)
		return nil
	}
	if err := s.makeRoom(sh); err != nil {
		return err
	}
	sh.away.remove(p.hash)
	sh.put(p.hash, row)
	return nil
}

// spot is where the entry of an ID is in memory, or where it belongs. It is valid until
// the shard changes.
type spot struct {
	shard *shard // nil without an ID
	hash  uint64
	id    greylist.ID
	slot  int // of the shard's table, -1 for no entry
}

func (h *hold) spot(role int) spot {
	if h.at[role] < 0 {
		return spot{slot: -1}
	}
	sh := &h.store.shards[h.at[role]]
	return spot{sh, h.hash[role], h.ids[role], sh.find(h.hash[role], h.ids[role])}
}

// known returns what is known about the ID; ok is false for nothing.
func (p spot) known() (known state, ok bool) {
	if p.slot < 0 || p.shard.slot(p.slot).is(deleted) {
		return state{}, false
	}
	return p.shard.slot(p.slot).state(), true
}

func (h *hold) triplet(role int) greylist.Triplet {
	known, _ := h.spot(role).known()
	return known.triplet
}

func (h *hold) client(role int) greylist.Client {
	known, _ := h.spot(role).known()
	return known.client
}

func (h *hold) record() greylist.Record {
	return greylist.Record{
		ByDomain:      h.triplet(byDomain),
		ByNetwork:     h.triplet(byNetwork),
		DomainClient:  h.client(domainClient),
		NetworkClient: h.client(networkClient),
	}
}

// change sets the state of an entry and marks the entry for writing. It adds the
// entry if there is none.
func (s *Store) change(p spot, next state) error {
	sh, slot := p.shard, p.slot
	if slot < 0 {
		if err := s.makeRoom(sh); err != nil {
			return err
		}
		slot = sh.add(p.hash, p.id)
		// The room for another entry of this operation may have been its own.
		sh.slot(slot).rowID = sh.away.row(p.hash)
		sh.away.remove(p.hash)
	}
	e := sh.slot(slot)
	e.set(deleted, false)
	e.setState(next)
	s.mark(sh, slot)
	return nil
}

// mark has Take return an entry.
func (s *Store) mark(sh *shard, slot int) {
	e := sh.slot(slot)
	e.version++
	sh.setBehind(e, false)
	if s.backing != nil && !e.is(dirty) {
		e.set(dirty, true)
		sh.dirty = append(sh.dirty, int32(slot))
	}
}
