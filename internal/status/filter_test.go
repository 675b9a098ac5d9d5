package status

import (
	"net/url"
	"reflect"
	"testing"

	"github.com/postern-mail/postern/internal/record"
)

// A term finds the text of every key that a record can have.
func TestTermOfEveryKey(t *testing.T) {
	v := reflect.ValueOf(new(record.Record)).Elem()
	for i := range v.NumField() {
		if v.Field(i).Kind() != reflect.String {
			continue
		}
		r := new(record.Record)
		reflect.ValueOf(r).Elem().Field(i).SetString("needle")
		found := 0
		for _, key := range keys() {
			f, err := parseFilter(url.Values{"q": {key + "=needle"}})
			if err == nil && key != "" && f.texts(r) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s is found by %d keys", v.Type().Field(i).Name, found)
		}
	}
}

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
