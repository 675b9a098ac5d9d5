package milter

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/mark"
	"github.com/postern-mail/postern/milter/sign"
)

// Mail from outside gets our signature only if its author was proven.
func TestMarkedMailIsNotSigned(t *testing.T) {
	keys := mark.New([]byte("0123456789abcdef"))
	const boss = " boss@example.com"
	seal := func(dmarc string, done mark.Done, from string) Field {
		a := author.ParseFrom(func(yield func(string, string) bool) { yield("From", from) })
		v := mark.Verdict{DMARC: dmarc, Done: done, At: time.Now()}
		return Field{Name: mark.Field, Value: " " + keys.Seal(v, mark.Content{From: mark.HashOf(from), Locals: mark.HashOfLocals(&a), Results: mark.HashOf("r"), Body: mark.HashOf("b")})}
	}
	early := func(dmarc string, done mark.Done) Field {
		v := mark.Verdict{DMARC: dmarc, Done: done, At: time.Now().Add(24 * time.Hour)} // the clock was set back since
		return Field{Name: mark.Field, Value: " " + keys.Seal(v, mark.Content{From: mark.HashOf(boss), Results: mark.HashOf("r"), Body: mark.HashOf("b")})}
	}
	forged := Field{Name: mark.Field, Value: " v=1; t=1; x=99999999999; dmarc=fail; dis=mark; f=x; r=x; bh=x; b=QUFB"}
	fill := make([]Field, mark.MaxMarks)
	for i := range fill {
		fill[i] = forged
	}
	for name, test := range map[string]struct {
		marks  []Field
		signed bool
	}{
		"no mark":                     {nil, true},
		"failed":                      {[]Field{seal("fail", mark.Quarantined, boss)}, false},
		"failed under p=none":         {[]Field{seal("fail", mark.Delivered, boss)}, false},
		"failed, From was completed":  {[]Field{seal("permerror", mark.Quarantined, " boss")}, false},
		"failed, held, released":      {[]Field{seal("fail", mark.Held, boss)}, false},
		"passed":                      {[]Field{seal("pass", mark.Delivered, boss)}, true},
		"passed, a list's From":       {[]Field{seal("pass", mark.Delivered, " x@other.example")}, true},
		"not proven":                  {[]Field{seal("none", mark.Delivered, boss)}, false},
		"DNS lookup failed":           {[]Field{seal("temperror", mark.Delivered, boss)}, false},
		"not proven, a list's From":   {[]Field{seal("none", mark.Delivered, " x@other.example")}, true},
		"not proven, completed":       {[]Field{seal("none", mark.Delivered, " boss")}, false},
		"completed in brackets":       {[]Field{seal("none", mark.Delivered, " The Boss <boss>")}, false},
		"percent hack":                {[]Field{seal("none", mark.Delivered, " boss%example.com")}, false},
		"bang path":                   {[]Field{seal("none", mark.Delivered, " example.com!boss")}, false},
		"quoted":                      {[]Field{seal("none", mark.Delivered, ` "boss"`)}, false},
		"a host's name, completed":    {[]Field{seal("none", mark.Delivered, " Boss@mail")}, false},
		"a masqueraded domain":        {[]Field{seal("temperror", mark.Delivered, ` "boss"@mail.example.com`)}, false},
		"a forged mark":               {[]Field{forged}, true},
		"failed tomorrow":             {[]Field{early("fail", mark.Delivered)}, false},
		"held tomorrow":               {[]Field{early("fail", mark.Held)}, false},
		"passed tomorrow":             {[]Field{early("pass", mark.Delivered)}, true},
		"good and bad":                {[]Field{seal("pass", mark.Delivered, boss), seal("fail", mark.Quarantined, boss)}, false},
		"a bad one among forged ones": {append([]Field{seal("fail", mark.Quarantined, boss)}, fill...), false},
	} {
		m := &Message{Role: Sign, Header: append(test.marks, Field{Name: "From", Value: boss})}
		work, _, err := NewSigning(sign.New(sign.Options{}, signingKeys(t)), keys, nil).Begin(t.Context(), &Session{}, m)
		if err != nil {
			t.Fatal(err)
		}
		a, err := work.Headers(t.Context())
		if err != nil || (a.Verdict == Continue) != test.signed || !test.signed && a.Reason != record.SignMarked {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		work.Close()
	}
}
