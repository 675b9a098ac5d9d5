package reportread

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// tlsJSON is a report with what senders do to the standard's form: a policy without
// brackets, a host without, a count in quotes.
const tlsJSON = `{"organization-name":"Sender\u001b[2J","contact-info":"tls@sender.example","report-id":"5065","date-range":{"start-datetime":"2026-11-25T00:00:00Z","end-datetime":"2026-11-25T23:59:59Z"},
"policies":{"policy":{"policy-type":"STS","policy-domain":"Example.com.","policy-string":["version: STSv1"],"mx-host":"mx.example.com"},"summary":{"total-successful-session-count":"97","total-failure-session-count":3},
"failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"192.0.2.7","receiving-mx-hostname":"MX.example.com","failed-session-count":2,"failure-reason-code":"x509"},{"result-type":"starttls-not-supported","failed-session-count":1,"additional-information":"https://sender.example/1"}]}}`

func TestTLS(t *testing.T) {
	for name, text := range map[string]string{
		"plain": tlsJSON, "byte order mark": "\xef\xbb\xbf" + tlsJSON, "gzip": gzipped(t, tlsJSON), "zip": zipped(t, tlsJSON),
		"mail":      mailOf("application/tlsrpt+gzip", "s!example.com!1!2!x.json.gz", gzipped(t, tlsJSON)),
		"mail, raw": mailOf("application/tlsrpt+json", "", tlsJSON),
	} {
		got := readText(t, text, Limits{})
		if len(got.tls) != 1 || got.problems != nil {
			t.Errorf("%s: %d reports, %q", name, len(got.tls), got.problems)
			continue
		}
		want := []TLSPolicy{{Type: "sts", Domain: "example.com", Hosts: []string{"mx.example.com"}, Successful: 97, Failed: 3, Failures: []TLSFailure{
			{Result: "certificate-expired", Sender: "192.0.2.7", Host: "mx.example.com", Reason: "x509", Sessions: 2},
			{Result: "starttls-not-supported", Info: "https://sender.example/1", Sessions: 1},
		}}}
		if r := got.tls[0]; !reflect.DeepEqual(r.Policies, want) || r.Org != "Sender\x1b[2J" || r.Day().Format("01-02") != "11-25" {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

func TestTLSRefused(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"negative":       {strings.Replace(tlsJSON, `:3}`, `:-3}`, 1), `"-3" is no count of sessions`},
		"fraction":       {strings.Replace(tlsJSON, `:3}`, `:3.5}`, 1), "is no count of sessions"},
		"no dates":       {strings.Replace(tlsJSON, "2026-11-25T00:00:00Z", "", 1), "no usable date-range"},
		"many policies":  {`{"policies":[` + strings.Repeat("{},", 1001) + `{}]}`, "more than 1000 elements"},
		"many failures":  {`{"policies":[{"failure-details":[` + strings.Repeat("{},", 10_001) + `{}]}]}`, "more than 10000 elements"},
		"many in all":    {`{"policies":[` + strings.Repeat(`{"failure-details":[`+strings.Repeat("{},", 4999)+`{}]},`, 2) + `{"failure-details":[{}]}]}`, "more than 10000 failures"},
		"many hosts":     {`{"policies":[{"policy":{"mx-host":[` + strings.Repeat(`"",`, 101) + `""]}}]}`, "more than 100 elements"},
		"deep":           {`{"policies":` + strings.Repeat("[", 20_000), "JSON: "},
		"of other types": {`{"policies":[1]}`, "JSON: "},
		"truncated":      {tlsJSON[:200], "JSON: unexpected EOF"},
		"null":           {`{"policies":null}`, "it is no TLS report"},
	} {
		if got := readText(t, test.text, Limits{}); len(got.problems) != 1 || !strings.Contains(got.problems[0], test.want) {
			t.Errorf("%s: got %q, want %q", name, got.problems, test.want)
		}
	}
}

// Sums of several reports, by domain, day and kind of failure.
func TestTLSSummary(t *testing.T) {
	tally := &Tally{Of: "example.com"}
	for i := range 3 {
		text := strings.NewReplacer("5065", fmt.Sprint(i/2), "2026-11-25", fmt.Sprintf("2026-11-%d", 25+i/2)).Replace(tlsJSON)
		tally.AddTLS(readText(t, text, Limits{}).tls[0]) // the second is the first again
	}
	tally.AddTLS(readText(t, strings.Replace(tlsJSON, "Example.com", "other.example", 1), Limits{}).tls[0])
	sum := tally.Summary()
	if sum.Reports != 2 || sum.Duplicates != 1 || len(sum.TLS) != 1 {
		t.Fatalf("got %+v", sum)
	}
	d := sum.TLS[0]
	if d.Successful != 194 || d.Failed != 6 || len(d.Days) != 2 || d.Days[1].Failed != 3 || len(d.Failures) != 2 || d.Failures[0].Sessions != 4 || d.Failures[0].Host != "mx.example.com" {
		t.Errorf("got %+v", d)
	}
}
