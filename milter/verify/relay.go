package verify

// maxHops is how many Received fields of our own hosts are skipped.
const maxHops = 10

// trail is the path of a mail through our own hosts, by its Received fields.
type trail struct {
	origin hop // the client of the first of our hosts; no Client if unknown
	// inside is how many fields our own hosts added at the top: those above the
	// Received field of the host that got the mail from outside.
	inside int
}

// follow reads the Received fields of a mail from one of our relays. It skips fields
// that a relay wrote about another of our hosts, or about itself (a content filter on
// loopback). The first other field is the border of our network: anyone may have
// written the fields below it. Without such a field, anyone may have written what is below the
// last Received field of our hosts: a relay may remove its own.
func (o *Options) follow(fields []Field) trail {
	hops, last := 0, 0
	for i, f := range fields {
		if !f.Is("Received") {
			continue
		}
		h, ok := parseReceived(f.Value)
		if hops++; ok && hops <= maxHops && (h.Client.IsLoopback() || o.Relays.Has(h.Client)) {
			last = i
			continue
		}
		if !ok {
			h = hop{}
		}
		return trail{h, i}
	}
	return trail{inside: last}
}

// from returns the envelope as it was when the mail came to our hosts. Without an
// origin there are no checks of the client.
func (t *trail) from(e Envelope) Envelope {
	e.Client, e.Helo, e.Relayed = t.origin.Client, t.origin.Helo, true
	return e
}
