package dnsbl

import (
	"fmt"
	"strings"
)

// progress is the state of a question.
type progress uint8

const (
	pending progress = iota
	answered
	unanswered
	skipped // out of service, and without weight in the outcome
)

// tally adds up answers as they come in. It keeps the lowest and the highest score
// that are still possible with the missing answers.
type tally struct {
	lists     *Lists
	questions []question
	states    []progress
	answers   []answer
	waiting   int
	score     int
	low, high int // what the missing answers can still add to the score
}

func newTally(l *Lists, questions []question) *tally {
	t := &tally{
		lists:     l,
		questions: questions,
		states:    make([]progress, len(questions)),
		answers:   make([]answer, len(questions)),
	}
	for n := range questions {
		z := questions[n].zone
		t.waiting++
		t.low += z.low
		t.high += z.high
		if p := z.problem(); p != Healthy {
			t.skip(n, p)
		}
	}
	return t
}

// skip leaves out a zone whose breaker is open.
func (t *tally) skip(n int, p Problem) {
	t.take(t.questions[n].skipped(n, p))
}

func (t *tally) take(a answer) {
	t.waiting--
	t.answers[a.n] = a
	z := t.questions[a.n].zone
	if a.failure != nil {
		t.states[a.n] = unanswered
		if a.failure.Broken && z.high == 0 {
			t.low -= z.low
			t.states[a.n] = skipped
		}
		return
	}
	t.states[a.n] = answered
	score, _ := z.score(a.codes)
	t.score += score
	t.low -= z.low
	t.high -= z.high
}

// settled reports whether the missing answers cannot change the outcome.
func (t *tally) settled() bool {
	c := &t.lists.config
	switch {
	case t.waiting == 0, t.score+t.low >= c.Threshold:
		return true
	}
	return !c.Signals && t.score+t.high < c.Threshold
}

func (t *tally) result() (Result, error) {
	r := Result{Score: t.score}
	for n := range t.questions {
		switch a := &t.answers[n]; {
		case t.states[n] == pending:
		case a.failure != nil:
			r.Failures = append(r.Failures, *a.failure)
		case len(a.codes) > 0:
			r.note(&t.questions[n], a.codes)
		}
		if f := t.answers[n].failure; f == nil || !f.Broken {
			r.Asked++
		}
	}
	switch threshold := t.lists.config.Threshold; {
	case t.score+t.low >= threshold:
		r.Outcome = Listed
	case t.score+t.high < threshold:
		r.Outcome = Clean
	default:
		r.Outcome = Undecided
		return r, &UnknownError{r.Failures}
	}
	return r, nil
}

// note adds the answer of a zone that holds the subject.
func (r *Result) note(q *question, codes []Code) {
	weight, counted := q.zone.score(codes)
	r.Hits = append(r.Hits, Hit{
		Zone: q.zone.public, Kind: q.zone.kind, Subject: q.subject, Roles: q.roles,
		Codes: codes, Weight: weight, Counted: counted,
	})
	for _, c := range codes {
		switch c.Class {
		case ClassAbused:
			r.Abused = true
		case ClassFresh:
			if r.FreshHours == 0 || c.Hours < r.FreshHours {
				r.FreshHours = c.Hours
			}
		}
	}
}

// UnknownError is the error of an undecided request. It holds the questions that
// failed.
type UnknownError struct{ Failures []Failure }

// maxShown limits the failures that an error lists.
const maxShown = 4

func (u *UnknownError) Error() string {
	var shown []string
	for i := range u.Failures {
		if i == maxShown {
			shown = append(shown, fmt.Sprintf("and %d more", len(u.Failures)-i))
			break
		}
		shown = append(shown, u.Failures[i].Error())
	}
	return strings.Join(shown, "; ")
}
