package wire

import (
	"errors"
	"strings"
	"testing"
)

func (p *pieces) Write(b []byte) (int, error) {
	p.told += string(b)
	return len(b), nil
}

func TestMilterClientIsTurnedAway(t *testing.T) {
	const offer = "\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"
	for _, in := range [][]string{{offer}, strings.Split(offer, ""), {offer + "\n\n"}} {
		p := &pieces{rest: in}
		_, err := NewReader(p, known...).Read()
		const frame = "\x00\x00\x00\x49y451 4.3.5 this is the policy port of postern-policyd, not a milter port\x00"
		if !errors.Is(err, ErrMilterClient) || p.told != frame {
			t.Errorf("%d pieces: %v, told %q", len(in), err, p.told)
		}
	}
}
