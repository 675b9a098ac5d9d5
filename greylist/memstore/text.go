package memstore

import "github.com/postern-mail/postern/greylist"

const (
	// textBits is the binary logarithm of the octets in a block of texts.
	textBits  = 12
	textBlock = 1 << textBits
)

// text holds the IDs of a table, one after the other. A text that is removed stays until
// the table is compacted.
type text struct {
	blocks [][]byte
	live   int // octets in use
	waste  int // octets that are not used any more
}

// at returns the text of a size at a place that add returned.
func (t *text) at(place, size uint32) []byte {
	from := place & (textBlock - 1)
	return t.blocks[place>>textBits][from : from+size]
}

// add adds a text and returns its place.
func (t *text) add(id greylist.ID) uint32 {
	last := len(t.blocks) - 1
	if last < 0 || len(t.blocks[last])+max(len(id), 1) > textBlock { // a place is within its block
		last++
		var block []byte
		if last > 0 { // the first grows as it is needed
			block = make([]byte, 0, max(textBlock, len(id)))
		}
		t.blocks = append(t.blocks, block)
	}
	block := &t.blocks[last]
	place := uint32(last)<<textBits | uint32(len(*block))
	*block = append(*block, id...)
	t.live += len(id)
	return place
}

func (t *text) remove(size uint32) {
	t.live -= int(size)
	t.waste += int(size)
}

// wasteful reports whether a quarter of the memory can be won by compacting.
func (t *text) wasteful() bool { return t.waste > textBlock && t.waste > t.live/3 }
