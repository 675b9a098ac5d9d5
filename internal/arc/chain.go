package arc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/internal/dkim"
)

// link is one set with its fields.
type link struct {
	Set
	results       int // indices of the fields in the header
	message, seal *dkim.Foreign
	sealIndex     int
	messageIndex  int
}

// chain has the sets of a message by instance: chain[0] is instance 1.
type chain []*link

// readChain collects the sets (RFC 8617 section 5.2, steps 1 to 3). For a
// message without sets it returns an empty chain and no error.
func readChain(fields []dkim.Field) (chain, error) {
	links := map[int]*link{}
	for i, f := range fields {
		kind := kindOf(f)
		if kind == "" {
			continue
		}
		if err := addField(links, kind, f, i); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
	}
	c := make(chain, 0, len(links))
	for i := 1; i <= len(links); i++ {
		l := links[i]
		switch {
		case l == nil:
			return nil, fmt.Errorf("instance %d is missing", i)
		case l.results < 0, l.message == nil, l.seal == nil:
			return nil, fmt.Errorf("set %d is incomplete", i)
		}
		c = append(c, l)
	}
	return c, c.checkValidations()
}

func kindOf(f dkim.Field) string {
	// The names are long and begin alike, so most other fields are ruled out
	// quickly.
	if len(f.Name) < len(fieldSeal) || f.Name[0]|0x20 != 'a' {
		return ""
	}
	for _, kind := range []string{fieldResults, fieldMessage, fieldSeal} {
		if f.Is(kind) {
			return kind
		}
	}
	return ""
}

func addField(links map[int]*link, kind string, f dkim.Field, index int) error {
	if kind == fieldResults {
		s, err := parseResults(f.Value)
		if err != nil {
			return err
		}
		l := at(links, s.Instance)
		if l.results >= 0 {
			return fmt.Errorf("instance %d occurs twice", s.Instance)
		}
		l.AuthServID, l.Results, l.results = s.AuthServID, s.Results, index
		return nil
	}
	signature, err := dkim.ParseForeign(f, index)
	if err != nil {
		return err
	}
	text, _ := signature.Tag("i")
	instance, err := parseInstance(text)
	if err != nil {
		return err
	}
	l := at(links, instance)
	if kind == fieldSeal {
		return l.addSeal(signature, index)
	}
	return l.addMessage(signature, index)
}

func at(links map[int]*link, instance int) *link {
	if links[instance] == nil {
		links[instance] = &link{Set: Set{Instance: instance}, results: -1}
	}
	return links[instance]
}

// addSeal adds an ARC-Seal. It must not have h=, because the fields that it
// covers are fixed.
func (l *link) addSeal(s *dkim.Foreign, index int) error {
	if l.seal != nil {
		return fmt.Errorf("instance %d occurs twice", l.Instance)
	}
	if _, ok := s.Tag("h"); ok {
		return errors.New("h= must not be there")
	}
	l.seal, l.sealIndex = s, index
	l.Sealer, l.Selector = s.Signature().Domain, s.Signature().Selector
	return nil
}

// addMessage adds an ARC-Message-Signature. It cannot sign seals, because they
// are added after it.
func (l *link) addMessage(s *dkim.Foreign, index int) error {
	if l.message != nil {
		return fmt.Errorf("instance %d occurs twice", l.Instance)
	}
	if err := s.ReadMessage(); err != nil {
		return err
	}
	for _, name := range s.Signature().Signed {
		if strings.EqualFold(name, fieldSeal) {
			return errors.New("h= must not name " + fieldSeal)
		}
	}
	l.message, l.messageIndex, l.Signer = s, index, s.Signature().Domain
	l.Bare = len(s.Signature().Signed) == 0
	return nil
}

// checkValidations checks cv=: it must be none in the first seal, and pass in
// all others (step 3 of section 5.2).
func (c chain) checkValidations() error {
	for i, l := range c {
		want := Pass
		if i == 0 {
			want = None
		}
		cv, _ := l.seal.Tag("cv")
		if !strings.EqualFold(cv, string(want)) {
			return fmt.Errorf("seal %d has a cv= other than %s", i+1, want)
		}
	}
	return nil
}
