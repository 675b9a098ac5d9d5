package policy

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{deadline: time.Now().Add(time.Second)}
		if err := b.Err(); err != nil || b.ctx != nil {
			t.Errorf("a fresh budget: %v, timer %v", err, b.ctx)
		}
		child, cancel := context.WithTimeout(b, time.Hour)
		defer cancel()
		start := time.Now()
		<-child.Done()
		if took := time.Since(start); took != time.Second || !errors.Is(child.Err(), context.DeadlineExceeded) || !errors.Is(b.Err(), context.DeadlineExceeded) {
			t.Errorf("%v and %v after %s", child.Err(), b.Err(), took)
		}
		b.end()
	})
}

func TestBudgetWithoutWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{deadline: time.Now().Add(time.Second)}
		time.Sleep(time.Second)
		if !errors.Is(b.Err(), context.DeadlineExceeded) {
			t.Errorf("spent: %v", b.Err())
		}
		b.end()
	})
}

func TestBudgetEnd(t *testing.T) {
	b := &budget{deadline: time.Now().Add(time.Hour)}
	done := b.Done()
	b.end()
	<-done
	late := &budget{deadline: time.Now().Add(time.Hour)}
	late.end()
	if !errors.Is(late.Err(), context.Canceled) {
		t.Errorf("ended: %v", late.Err())
	}
	<-late.Done()
	if !errors.Is(late.Err(), context.Canceled) {
		t.Errorf("ended and asked: %v", late.Err())
	}
}

// A request for a value does not start the timer.
func TestBudgetHasNoValues(t *testing.T) {
	b := &budget{deadline: time.Now().Add(time.Hour)}
	type key struct{}
	if v := context.WithValue(b, key{}, 1).Value(t); v != nil || b.ctx != nil {
		t.Errorf("value %v, timer %v", v, b.ctx)
	}
}
