package postfixtest

import (
	"slices"
	"testing"
)

func TestDeliveryHeaders(t *testing.T) {
	d := Delivery{Data: []byte("Received: one\r\n two\r\nX-A: 1\r\nx-a : 2\r\n\r\nX-A: body\r\n")}
	if got := d.Headers("X-A"); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("X-A is %q", got)
	}
	if got := d.Header("received"); got != "one two" {
		t.Errorf("Received is %q", got)
	}
	if got := d.Header("Subject"); got != "" {
		t.Errorf("Subject is %q", got)
	}
}

func TestOverride(t *testing.T) {
	got := override([]string{"a = 1", "b = 2"}, []string{"b=3", "c = 4"})
	if want := []string{"a = 1", "b=3", "c = 4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestResultFinal(t *testing.T) {
	yes, no := Reply{Code: 250}, Reply{Code: 550, Lines: []string{"5.1.1 no", "really"}}
	tests := []struct {
		name string
		r    Replies
		want int
	}{
		{"mail refused", Replies{Mail: no}, 550},
		{"second recipient refused", Replies{Mail: yes, Rcpt: []Reply{yes, no}, Data: yes}, 550},
		{"all well", Replies{Mail: yes, Rcpt: []Reply{yes}, Data: yes}, 250},
	}
	for _, test := range tests {
		if got := test.r.Final(); got.Code != test.want {
			t.Errorf("%s: got %s", test.name, got)
		}
	}
	if got := no.String(); got != "550 5.1.1 no / really" {
		t.Errorf("got %q", got)
	}
}
