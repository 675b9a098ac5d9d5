package status

import (
	"net/url"
	"reflect"
	"testing"
)

// The query for a peer means the same as the query of the page.
func FuzzWant(f *testing.F) {
	for _, q := range []string{"", "q=sender%3Da+b&verdict=pass&after=7&run=x", "q=%ff=&check=dnsbl&privacy=1", "q==+sender%3D&reason=a%00b", "after=18446744073709551615"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		w, err := parseWant(q)
		if err != nil {
			return
		}
		again, err := parseWant(w.query())
		if err != nil || !reflect.DeepEqual(w, again) {
			t.Errorf("%q: %+v, of its query %+v, %v", text, w, again, err)
		}
	})
}
