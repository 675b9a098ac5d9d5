package memstore

import "github.com/postern-mail/postern/greylist"

// maxFloodNetworks bounds the networks of a shard whose new triplets are
// counted. Beyond it an older count is dropped.
const maxFloodNetworks = 1 << 10

// counter counts the new triplets of a greylist.Key's Window.
type counter struct {
	start greylist.Stamp
	count int
}

func (sh *shard) recent(network string, now greylist.Stamp) int {
	if w := sh.flood[network]; w.runs(now) {
		return w.count
	}
	return 0
}

// ends returns when the window ends.
func (w counter) ends() greylist.Stamp {
	return w.start + greylist.Stamp(greylist.FloodWindow.Milliseconds())
}

func (w counter) runs(now greylist.Stamp) bool {
	age := now.Sub(w.start)
	return age >= 0 && age < greylist.FloodWindow
}

func (sh *shard) count(network string, now greylist.Stamp) {
	w := sh.flood[network]
	if !w.runs(now) {
		w = counter{start: now}
	}
	w.count++
	if _, ok := sh.flood[network]; !ok && len(sh.flood) >= maxFloodNetworks {
		for other := range sh.flood {
			delete(sh.flood, other)
			break
		}
	}
	sh.flood[network] = w
}
