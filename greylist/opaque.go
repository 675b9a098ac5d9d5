package greylist

import "strings"

// An opaque word is one that no person would choose as a name: a random token of
// letters, or of letters and digits. Pairs of neighbouring letters distinguish it
// from a name. Each pair has a value: how much more often it occurs in names than in
// random text, in halves of a power of two. A letter beside a digit has a low value
// too. The value of a word is the sum of its pairs' values.
//
// A name may begin or end with initials or a number, which look random: hjmvdberg,
// kowalskijr2. So the first three or the last three pairs are left out, whichever
// have the lower value.
//
// The values come from 55,767 first names, surnames, towns and words of 60
// languages in the Latin script. Names in the spelling of Poland, Ireland, China and
// Korea have more weight. Measured on these words: 0.1 % of the words of at least
// nine letters count as opaque, and 0.2 % of two words, or a word and initials, put
// together. Of random tokens of letters, 60 % (nine letters), 80 % (twelve) and 96 %
// (19) count as opaque; of letters and digits, 80 %, 95 % and all. A token that is
// missed costs a delay, as any new sender does.

const (
	// minToken is the length from which a word can be opaque.
	minToken = 9
	// opaqueBelow is the value below which a word is opaque: it is then more than
	// eight times as likely in random text as in names.
	opaqueBelow = -6
	// trimmed is how many pairs are left out at one end.
	trimmed = 3
	// mixedPair is the value of a letter beside a digit.
	mixedPair = -6
	// tripled is the value of the last pair when a letter occurs three times in a row.
	tripled = -8
	// rarest is the value of the digit 0 in pairValues.
	rarest = -8
)

// pairValues has a line for the first letter and a column for the second: 0 for
// -8, that is 16 times rarer than in random text, to c for 4.
var pairValues = [26]string{
	"47895475858b8c660b99673056", // a
	"c414c007b22903c00b50a02070", // b
	"b030b00ca0b603a00695800037", // c
	"c405c038c33626c00973a54076", // d
	"65886375758b8c760ca9764236", // e
	"c000c931c02901b00b57a00040", // f
	"c655c368a35757a42a76a262a4", // g
	"c401c030b12646c00837b26070", // h
	"a6b8a474068a8c8629a9561136", // i
	"c155c402b07437b30186b45062", // j
	"c120b015a25724c10966924070", // k
	"c457c344c36a65b30177940070", // l
	"c832c127c13574b80463a02060", // m
	"b58ab3c5b47327a202aa613084", // n
	"36786465547a9c670ba89c7046", // o
	"c242c237b24923c70b66a03060", // p
	"a0000000c00401700013c90000", // q
	"c568c374b17668b30699943066", // r
	"a482b119a0c744a6038c84404a", // s
	"c230c139c25644b10b78933073", // t
	"a7889365a47a9b770ba9144336", // u
	"c032c000c04505b00690500050", // v
	"c010c205c23525c00591800080", // w
	"b060b204c00553a7104ac21341", // x
	"b676c345927769b50696b44063", // y
	"c557c13ab06657a00187943083", // z
}

// isOpaque reports whether a word of lower-case letters and digits is opaque. A
// number at its end is ignored.
func isOpaque(w string) bool {
	if len(w) < minToken {
		return false
	}
	w = strings.TrimRight(w, "0123456789")
	var all, head, tail, n int // sums: of all pairs, of the first and of the last three
	var last [trimmed]int
	for i := 1; i < len(w); i++ {
		v, counts := pairValue(w, i)
		if !counts {
			continue
		}
		if n < trimmed {
			head += v
		}
		tail += v - last[n%trimmed]
		last[n%trimmed] = v
		all += v
		n++
	}
	if n <= trimmed {
		return false
	}
	return all-min(head, tail) < opaqueBelow
}

// pairValue returns the value of the pair that ends at i. Two digits do not count.
func pairValue(w string, i int) (value int, counts bool) {
	a, b := w[i-1], w[i]
	switch {
	case isDigit(a) && isDigit(b):
		return 0, false
	case isDigit(a) || isDigit(b):
		return mixedPair, true
	case a == b && i > 1 && w[i-2] == a:
		return tripled, true
	case b == a+1: // as in abc, which people type
		return 0, true
	}
	v := pairValues[a-'a'][b-'a']
	if v >= 'a' {
		return int(v-'a') + 10 + rarest, true
	}
	return int(v-'0') + rarest, true
}
