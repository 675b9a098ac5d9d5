package storetest

import (
	"time"

	"github.com/postern-mail/postern/greylist"
)

// model is the simplest store that is correct.
type model struct {
	entries map[greylist.ID]greylist.Entry
	starts  map[string]greylist.Stamp // of the flood window
	made    map[string]int
}

func newModel() *model {
	return &model{map[greylist.ID]greylist.Entry{}, map[string]greylist.Stamp{}, map[string]int{}}
}

func (m *model) seen(k greylist.Key, now time.Time, l greylist.Limits) greylist.Record {
	at := greylist.At(now)
	r := greylist.Record{
		ByDomain:      m.entries[k.ByDomain()].Triplet,
		ByNetwork:     m.entries[k.ByNetwork()].Triplet,
		DomainClient:  m.entries[k.DomainClient()].Client,
		NetworkClient: m.entries[k.NetworkClient()].Client,
	}
	age := at.Sub(m.starts[k.Window()])
	runs := m.made[k.Window()] > 0 && age >= 0 && age < greylist.FloodWindow
	recent := 0
	if runs {
		recent = m.made[k.Window()]
	}
	c := r.Advance(k, at, recent, l)
	r.Refused = c.Refused
	if c.Refused == greylist.NetworkFlooded {
		r.FloodEnds = m.starts[k.Window()] + greylist.Stamp(greylist.FloodWindow.Milliseconds())
	}
	if c.IsNew && l.NetworkCap > 0 {
		if !runs {
			m.starts[k.Window()] = at
		}
		m.made[k.Window()] = recent + 1
	}
	m.apply(k, c, at)
	return r
}

func (m *model) apply(k greylist.Key, c greylist.Change, at greylist.Stamp) {
	if c.WriteTriplet {
		for _, id := range []greylist.ID{k.ByDomain(), k.ByNetwork()} {
			if id != "" {
				m.entries[id] = greylist.Entry{ID: id, Triplet: c.Triplet}
			}
		}
	}
	for id, touched := range map[greylist.ID]bool{k.DomainClient(): c.TouchDomain, k.NetworkClient(): c.TouchNetwork} {
		if touched {
			m.entries[id] = greylist.Entry{ID: id, Client: m.entries[id].Client.Touched(at)}
		}
	}
}

func (m *model) credit(client string, now time.Time) {
	id := greylist.ID(client)
	if c, ok := m.entries[id].Client.Credited(greylist.At(now)); ok {
		m.entries[id] = greylist.Entry{ID: id, Client: c}
	}
}
