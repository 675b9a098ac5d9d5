package policy

// The signals that checks give each other. Whoever adds one says here what its
// number means.
const (
	// DNSBLScore is the sum of the DNS lists' weights, when it is not 0: below
	// the threshold a reason for doubt, negative a recommendation.
	DNSBLScore Signal = "dnsbl_score"
	// DBLAbused is 1 when a name of the request is a legitimate domain that is
	// abused.
	DBLAbused Signal = "dbl_abused"
	// ZRDFresh is the age in hours, at most 24, of a domain of the request that
	// has only just been seen for the first time.
	ZRDFresh Signal = "zrd_fresh"
)
