package dnsbl

import "slices"

// row is the meaning of the codes 127.0.x.y with x within third and y within
// fourth.
type row struct {
	third, fourth [2]byte
	class         Class
	name          string
}

// table describes a list and the zones that belong to it.
type table struct {
	zones  []string // public names
	rows   []row
	other  Class    // of codes without a row
	tests  []string // its own test entries, see SelfTest; nil: those of RFC 5782
	lookup string   // web page about a subject, which replaces {}
}

const spamhausLookup = "https://check.spamhaus.org/results/?query={}"

// tables are the lists whose codes are known. The last table is for all other
// lists: each code is a listing except 127.0.0.1 (RFC 5782 section 2.1), unless a
// filter names it.
func tables() []table {
	other := table{rows: []row{{[2]byte{0, 0}, [2]byte{0, 1}, ClassOther, ""}}, other: ClassListed}
	return slices.Concat(spamhausTables(), otherTables(), []table{other})
}

// spamhausTables has the codes of https://docs.spamhaus.com.
func spamhausTables() []table {
	return []table{{
		zones: []string{"zen.spamhaus.org", "sbl.spamhaus.org", "xbl.spamhaus.org", "sbl-xbl.spamhaus.org", "pbl.spamhaus.org"},
		rows: []row{
			{[2]byte{0, 0}, [2]byte{2, 2}, ClassListed, "SBL"},
			{[2]byte{0, 0}, [2]byte{3, 3}, ClassListed, "CSS"},
			{[2]byte{0, 0}, [2]byte{4, 7}, ClassListed, "XBL"}, // .5 to .7 are reserved for it
			{[2]byte{0, 0}, [2]byte{9, 9}, ClassListed, "DROP"},
			{[2]byte{0, 0}, [2]byte{10, 11}, ClassListed, "PBL"}, // entered by the provider, by Spamhaus
			{[2]byte{0, 0}, [2]byte{20, 20}, ClassOther, "AuthBL"},
			{[2]byte{0, 0}, [2]byte{30, 30}, ClassListed, "BCL"},
		},
		lookup: spamhausLookup,
	}, {
		zones: []string{authZone},
		rows:  []row{{[2]byte{0, 0}, [2]byte{20, 20}, ClassListed, "AuthBL"}},
	}, {
		zones: []string{"dbl.spamhaus.org"},
		rows: []row{
			{[2]byte{1, 1}, [2]byte{2, 2}, ClassListed, "DBL low reputation"},
			{[2]byte{1, 1}, [2]byte{4, 4}, ClassListed, "DBL phish"},
			{[2]byte{1, 1}, [2]byte{5, 5}, ClassListed, "DBL malware"},
			{[2]byte{1, 1}, [2]byte{6, 6}, ClassListed, "DBL botnet C&C"},
			{[2]byte{1, 1}, [2]byte{102, 102}, ClassAbused, "DBL abused legit"},
			{[2]byte{1, 1}, [2]byte{103, 103}, ClassAbused, "DBL abused redirector"},
			{[2]byte{1, 1}, [2]byte{104, 104}, ClassAbused, "DBL abused phish"},
			{[2]byte{1, 1}, [2]byte{105, 105}, ClassAbused, "DBL abused malware"},
			{[2]byte{1, 1}, [2]byte{106, 106}, ClassAbused, "DBL abused botnet C&C"},
		},
		tests:  []string{"dbltest.com", "test"},
		lookup: spamhausLookup,
	}, {
		zones:  []string{freshZone},
		rows:   []row{{[2]byte{2, 2}, [2]byte{2, 24}, ClassFresh, "ZRD"}},
		tests:  []string{"dbltest.com", "test"},
		lookup: spamhausLookup,
	}}
}

// otherTables has codes from the web sites of their lists.
func otherTables() []table {
	return []table{{
		zones: []string{"list.dnswl.org"},
		rows: []row{
			{[2]byte{0, 255}, [2]byte{255, 255}, ClassRefused, "over quota"},
			{[2]byte{2, 20}, [2]byte{0, 0}, ClassAllowed, "DNSWL none"},
			{[2]byte{2, 20}, [2]byte{1, 1}, ClassAllowed, "DNSWL low"},
			{[2]byte{2, 20}, [2]byte{2, 2}, ClassAllowed, "DNSWL medium"},
			{[2]byte{2, 20}, [2]byte{3, 3}, ClassAllowed, "DNSWL high"},
		},
		lookup: "https://www.dnswl.org/s/?s={}",
	}, {
		zones: []string{"multi.uribl.com", "black.uribl.com"},
		rows:  bitRows(),
		tests: []string{"test.uribl.com", "127.0.0.2"},
	}, {
		zones: []string{"multi.surbl.org"},
		rows:  bitRows(),
		tests: []string{"surbl-org-permanent-test-point.com", "test.surbl.org", "127.0.0.2"},
	}, {
		// What it calls white counts only where a filter names it. It lists
		// 127.0.0.1 as white.
		zones: []string{"hostkarma.junkemailfilter.com"},
		rows: []row{
			{[2]byte{0, 0}, [2]byte{1, 1}, ClassOther, "hostkarma white"},
			{[2]byte{0, 0}, [2]byte{2, 2}, ClassListed, "hostkarma black"},
			{[2]byte{0, 0}, [2]byte{3, 3}, ClassOther, "hostkarma yellow"},
			{[2]byte{0, 0}, [2]byte{4, 4}, ClassListed, "hostkarma brown"},
			{[2]byte{0, 0}, [2]byte{5, 5}, ClassOther, "hostkarma no black"},
		},
		tests: []string{"127.0.0.2"},
	}}
}

// bitRows are the codes of URIBL and SURBL: bit 1 is a refusal, the other bits name
// their lists.
func bitRows() []row {
	return []row{
		{[2]byte{0, 0}, [2]byte{1, 1}, ClassRefused, "over quota"},
		{[2]byte{0, 0}, [2]byte{2, 254}, ClassListed, ""},
	}
}

// tableOf returns the table of a zone by its public name.
func tableOf(zone string) table {
	all := tables()
	for _, t := range all {
		if slices.Contains(t.zones, zone) {
			return t
		}
	}
	return all[len(all)-1]
}
