package verify

// maxHops is how many Received fields of our own hosts are looked through.
const maxHops = 10

// trail is the way of a mail through our own hosts, as its Received fields show it.
type trail struct {
	origin hop // who handed the mail to the first of our hosts; no Client if unknown
	// inside is how many fields our own hosts put on top: those above the Received
	// field of the one that got the mail from outside.
	inside int
}

// follow reads the Received fields of a mail that one of our relays hands over.
// Those that a relay wrote about another of our hosts, or about itself (a content
// filter on loopback), are looked through. The first other one is the border of
// our network: what is below it, anyone may have written.
func (o *Options) follow(fields []Field) trail {
	hops := 0
	for i, f := range fields {
		if !f.Is("Received") {
			continue
		}
		h, ok := parseReceived(f.Value)
		if hops++; ok && hops <= maxHops && (h.Client.IsLoopback() || o.Relays.Has(h.Client)) {
			continue
		}
		if !ok {
			h = hop{}
		}
		return trail{h, i}
	}
	return trail{inside: len(fields)}
}

// from returns the envelope as it was when the mail came to our hosts. Without an
// origin no one is asked about the client.
func (t *trail) from(e Envelope) Envelope {
	e.Client, e.Helo, e.Relayed = t.origin.Client, t.origin.Helo, true
	return e
}
