package resolver

import "net/netip"

// CachedAddrs answers for the IPv4 addresses of host out of the cache alone,
// at once, for callers that would start a goroutine to ask. known is false when
// DNS would have to be asked. No addresses and no error mean a proven absence;
// an error is that of a lookup which failed a moment ago. The addresses are the
// cache's own and must not be written to.
func (r *Resolver) CachedAddrs(host string) (addrs []netip.Addr, known bool, err error) {
	name, err := canonical(host)
	if err != nil {
		return nil, true, unaskable(host, err)
	}
	q := question{name, TypeA}
	s := r.shard(q)
	now := r.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, known := s.get(q, now)
	switch {
	case !known:
		return nil, false, nil
	case kept.fail != nil:
		return nil, true, kept.fail.dnsError(host)
	}
	return kept.answer.Addrs, true, nil
}
