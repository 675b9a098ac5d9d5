package policy

// The signals between checks. Each is described with the meaning of its number.
const (
	// DNSBLScore is the sum of the weights of the DNS lists, if it is not 0. A
	// value below the threshold is a reason for doubt, a negative one a
	// recommendation.
	DNSBLScore Signal = "dnsbl_score"
	// DBLAbused is 1 if a name in the request is a legitimate domain that is
	// being abused.
	DBLAbused Signal = "dbl_abused"
	// ZRDFresh is the age in hours, at most 24, of a domain in the request that
	// was first seen only recently.
	ZRDFresh Signal = "zrd_fresh"
)
