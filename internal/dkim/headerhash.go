package dkim

import (
	"crypto/sha256"
	"strings"
)

// headerHash hashes the fields of one message for each of its signatures.
type headerHash struct {
	fields  []Field
	byName  map[string][]int // indices of the fields of a name, lower case
	relaxed [][]byte         // canonical fields, made when first used
	scratch []byte
}

func newHeaderHash(fields []Field) *headerHash {
	h := &headerHash{
		fields:  fields,
		byName:  make(map[string][]int, len(fields)),
		relaxed: make([][]byte, len(fields)),
	}
	for i, f := range fields {
		name := strings.ToLower(trimRightWSP(f.Name))
		h.byName[name] = append(h.byName[name], i)
	}
	return h
}

// sum returns the hash of what p signed. For each name in h=, this is the
// lowest field of that name that was not used before. After them comes the
// signature field itself, without the value of b= and without its final line
// break (RFC 6376 sections 3.7 and 5.4.2). A name for which no field is left
// is ignored. A signature cannot have signed itself.
func (h *headerHash) sum(p *parsed) [sha256.Size]byte {
	hash := sha256.New()
	taken := make(map[string]int, len(p.Signed))
	for _, name := range p.Signed {
		name = strings.ToLower(name)
		of := h.byName[name]
		left := len(of) - taken[name]
		if left > 0 && of[left-1] == p.Index {
			left--
			taken[name]++
		}
		if left > 0 {
			taken[name]++
			hash.Write(h.canonical(p.header, of[left-1]))
		}
	}
	own := AppendField(h.scratch[:0], p.header, p.unsigned())
	hash.Write(own[:len(own)-len(crlf)])
	h.scratch = own
	var sum [sha256.Size]byte
	hash.Sum(sum[:0])
	return sum
}

func (h *headerHash) canonical(c Canonicalization, i int) []byte {
	if c == Simple {
		h.scratch = AppendField(h.scratch[:0], c, h.fields[i])
		return h.scratch
	}
	if h.relaxed[i] == nil {
		h.relaxed[i] = AppendField(nil, c, h.fields[i])
	}
	return h.relaxed[i]
}
