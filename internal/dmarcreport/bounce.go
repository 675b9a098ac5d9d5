package dmarcreport

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// bouncePart begins the extension in the envelope sender of reports. The extension of a
// bounce identifies the report and its recipient.
const bouncePart = "+b."

const (
	maxBounce     = 256 << 10 // octets of a bounce that are read
	maxBounceLine = 8 << 10
	// An address whose mail bounces gets no reports for a week. The time doubles with
	// each further bounce.
	firstSilence = 7 * 24 * time.Hour
	lastSilence  = 8 * firstSilence
)

// returnPath returns the envelope sender of a report.
func returnPath(from, token string) string {
	at := strings.LastIndexByte(from, '@')
	return from[:at] + bouncePart + token + from[at:]
}

// TokenOf returns the token in the recipient of a bounce, or "".
func TokenOf(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		at = len(address)
	}
	_, token, ok := strings.Cut(strings.ToLower(address[:at]), bouncePart)
	if !ok || len(token) != 16 || strings.Trim(token, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return ""
	}
	return token
}

// sentTo is the delivery that a token identifies.
type sentTo struct {
	Day     Day    `json:"day"`
	Domain  string `json:"domain"`
	Address string `json:"to"`
}

// noteToken stores which delivery a token identifies, from now on for keepTokens.
func (s *Sender) noteToken(ctx context.Context, r *Report, d *Delivery) error {
	text, err := json.Marshal(sentTo{r.Day, r.Domain.Name, d.Address})
	if err != nil {
		return err
	}
	now, name := s.Now(), tokenPrefix+d.Token
	before, err := s.Store.Note(ctx, name, now)
	if err != nil {
		return err
	}
	_, err = s.Store.SwapNote(ctx, name, before, string(text), now, now.Add(keepTokens))
	return err
}

// Bounce is a mail that came back.
type Bounce struct {
	Failed bool   // permanently; else it is a delay notice or an automatic answer
	Why    string // the reason from the other server
}

// ReadBounce parses a bounce: an RFC 3464 notification, or another mail from the null
// sender that is no automatic answer. A mail that has another sender in its Return-Path
// was written by a person or a program, and shows that the address exists.
func ReadBounce(in io.Reader) (b Bounce, err error) {
	r := bufio.NewReaderSize(&io.LimitedReader{R: in, N: maxBounce}, maxBounceLine)
	known, answer, returned, header := false, false, false, true
	var action, status, diagnostic string
	for {
		line, err := readBounceLine(r)
		name, value, ok := strings.Cut(line, ":")
		value = textproto.TrimString(value)
		switch strings.ToLower(textproto.TrimString(name)) {
		case "return-path":
			if header && !returned {
				returned = true
				answer = answer || value != "<>" && !strings.EqualFold(value, "<MAILER-DAEMON>")
			}
		case "auto-submitted":
			answer = answer || header && strings.HasPrefix(strings.ToLower(value), "auto-")
		case "action":
			if ok && !header && action == "" {
				action, known = strings.ToLower(value), true
			}
		case "status":
			if ok && !header && status == "" {
				status = value
			}
		case "diagnostic-code":
			if ok && !header && diagnostic == "" {
				diagnostic = value
			}
		}
		header = header && line != ""
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return b, err
		}
	}
	why := strings.TrimSpace(strings.ToValidUTF8(status+" "+diagnostic, "?"))
	b.Why = strings.ToValidUTF8(why[:min(len(why), maxError)], "")
	b.Failed = known && action == "failed" || !known && !answer
	if b.Why == "" {
		b.Why = "mail to it came back"
	}
	return b, nil
}

// readBounceLine returns a line. A long line is cut.
func readBounceLine(r *bufio.Reader) (string, error) {
	part, err := r.ReadSlice('\n')
	line := strings.TrimRight(string(part), "\r\n")
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	return line, err
}

// ErrNoToken is the error for a bounce that belongs to none of our reports.
var ErrNoToken = errors.New("no report was sent with this envelope sender")

// TakeBounce records that a report bounced. The address gets no reports for a while.
func (s *Sender) TakeBounce(ctx context.Context, token string, b Bounce) (address string, err error) {
	text, err := s.Store.Note(ctx, tokenPrefix+token, s.Now())
	if err != nil {
		return "", err
	}
	var to sentTo
	if text == "" || json.Unmarshal([]byte(text), &to) != nil {
		return "", ErrNoToken
	}
	if !b.Failed {
		return to.Address, nil
	}
	return to.Address, errors.Join(s.markBounced(ctx, to, token, b), s.silence(ctx, to.Address, b))
}

// markBounced records the bounce in the state of the report. A sender can be at work on
// the report at the same time: Postfix may bounce a mail while the sender notes that it
// was accepted.
func (s *Sender) markBounced(ctx context.Context, to sentTo, token string, b Bounce) error {
	r := &Report{Reporter: s.Reporter, Day: to.Day, Domain: Domain{Name: to.Domain}}
	for tries := 1; ; tries++ {
		h, err := s.load(ctx, r)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(h.To, func(d Delivery) bool { return d.Token == token })
		if i < 0 {
			return nil
		}
		h.To[i].bounced(b.Why)
		if err := s.save(ctx, h); !errors.Is(err, errMoved) || tries == maxMoved {
			return err
		}
	}
}

// silence stops reports to an address for a time that doubles with each bounce.
func (s *Sender) silence(ctx context.Context, address string, b Bounce) error {
	d, before, err := s.suppressed(ctx, address)
	if err != nil {
		return err
	}
	now := s.Now()
	if now.Before(d.Until) {
		return nil // reports about several domains can bounce at the same time
	}
	d.Bounces++
	d.Why = b.Why
	pause := min(firstSilence<<min(d.Bounces-1, 10), lastSilence)
	d.Until = now.Add(pause)
	text, err := json.Marshal(&d)
	if err != nil {
		return err
	}
	// The note is kept longer than the pause, so that the next bounce doubles it.
	if ok, err := s.Store.SwapNote(ctx, deadPrefix+address, before, string(text), now, d.Until.Add(pause+keepSilence)); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("the note about %s was changed by another host", address))
	}
	return nil
}

// EachSuppressed calls f for each address that gets no reports because of bounces.
func (s *Sender) EachSuppressed(ctx context.Context, f func(address string, d Suppressed) error) error {
	return s.Store.EachNote(ctx, deadPrefix, s.Now(), func(name, text string) error {
		var d Suppressed
		if json.Unmarshal([]byte(text), &d) != nil || !s.Now().Before(d.Until) {
			return nil
		}
		return f(strings.TrimPrefix(name, deadPrefix), d)
	})
}

// StateOf returns the state of a report.
func (s *Sender) StateOf(ctx context.Context, r *Report) (State, error) {
	h, err := s.load(ctx, r)
	if err != nil {
		return State{}, err
	}
	return h.State, nil
}
