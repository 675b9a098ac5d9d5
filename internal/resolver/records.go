package resolver

import (
	"encoding/binary"
	"errors"

	"github.com/miekg/dns"
)

// records walks over the records of a packet, one at a time. Only the records that
// answer the question are unpacked. So a packet costs no more memory than the part
// that is kept, and an unreadable record of another type does no harm.
type records struct {
	packet  []byte
	off     int
	section int    // the next one
	asked   string // the name of the question, canonical
	wire    []byte // the same, packed
}

// record is one record whose data is still packed.
type record struct {
	dns.RR_Header
	owner  string // canonical
	packet []byte // up to the end of the data
	data   int    // where the data begins
}

// fixedLen is the length of type, class, TTL and length of the data.
const fixedLen = 10

var (
	errShort  = errors.New("it ends within a record")
	errDotted = errors.New("a name with a dot in a label")
)

// each calls visit for every record of one section, and returns the walk at the
// next section. Sections before it are skipped.
func (w records) each(section int, visit func(*record) error) (records, error) {
	var r record
	for ; w.section <= section; w.section++ {
		for range count(w.packet, w.section) {
			if err := w.next(&r); err != nil {
				return w, err
			}
			if w.section < section {
				continue
			}
			if err := visit(&r); err != nil {
				return w, err
			}
		}
	}
	return w, nil
}

// next reads one header into r and steps over the data.
func (w *records) next(r *record) error {
	off, err := w.owner(r)
	if err != nil {
		return err
	}
	if len(w.packet)-off < fixedLen {
		return errShort
	}
	fixed := w.packet[off:]
	r.RR_Header = dns.RR_Header{
		Rrtype:   binary.BigEndian.Uint16(fixed),
		Class:    binary.BigEndian.Uint16(fixed[2:]),
		Ttl:      binary.BigEndian.Uint32(fixed[4:]),
		Rdlength: binary.BigEndian.Uint16(fixed[8:]),
	}
	r.data = off + fixedLen
	w.off = r.data + int(r.Rdlength)
	if w.off > len(w.packet) {
		return errShort
	}
	r.packet = w.packet[:w.off]
	return nil
}

// owner reads the owner of the next record and returns where it ends. Nearly all
// records belong to the name that was asked: these need no reading.
func (w *records) owner(r *record) (end int, err error) {
	at := w.packet[w.off:]
	if len(at) >= 2 && at[0] == 0xc0 && at[1] == headerLen { // a pointer to the question
		r.owner = w.asked
		return w.off + 2, nil
	}
	if len(at) >= len(w.wire) && sameName(at[:len(w.wire)], w.wire) {
		r.owner = w.asked
		return w.off + len(w.wire), nil
	}
	name, end, err := dns.UnpackDomainName(w.packet, w.off)
	if err != nil {
		return 0, err
	}
	owner, ok := canonicalOf(name)
	if !ok {
		return 0, errDotted
	}
	r.owner = owner
	return end, nil
}

// unpack reads the data. Empty data is an error for every type.
func (r *record) unpack() (dns.RR, bool) {
	rr, _, err := dns.UnpackRRWithHeader(r.RR_Header, r.packet, r.data)
	return rr, err == nil && r.Rdlength > 0
}
