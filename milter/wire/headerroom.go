package wire

// HeaderOverflow reports whether header fields of the current message were dropped
// because there were more than [MaxHeaders] or [MaxHeaderBytes].
func (g *Guard) HeaderOverflow() bool {
	return g.headers > MaxHeaders || g.hdrBytes > MaxHeaderBytes
}

// HeaderNoRoom reports whether header fields of the current message were dropped
// because too many messages with large headers are under way.
func (g *Guard) HeaderNoRoom() bool { return g.noRoom }

// newHeader resets the counters for the next header.
func (g *Guard) newHeader() {
	g.headers, g.hdrBytes, g.noRoom = 0, 0, false
	g.giveBack()
}

// overflows counts a header field and reports whether it has to be dropped.
func (g *Guard) overflows(n int) bool {
	g.headers = min(g.headers+1, MaxHeaders+1)
	g.hdrBytes = min(g.hdrBytes+n, MaxHeaderBytes+1)
	if g.HeaderOverflow() {
		return true
	}
	if kept := g.hdrBytes + fieldCost*g.headers; kept > freeHeader && !g.noRoom {
		more := kept - freeHeader - g.lent
		if g.noRoom = !g.cfg.Buffers.lend(more); !g.noRoom {
			g.lent += more
		}
	}
	return g.noRoom
}

// giveBack returns the room for a large header.
func (g *Guard) giveBack() {
	g.cfg.Buffers.giveBack(g.lent)
	g.lent = 0
}
