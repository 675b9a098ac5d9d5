package main

import (
	"context"
	"time"
)

// parts is how many short turns a side has in a round: the speed of the machine changes
// within seconds.
const parts = 6

// side is one of several things whose CPU time is compared.
type side struct {
	pid int // of a server, of which all CPU time in a round counts; 0 if turn measures
	// turn does the work of a turn. It returns the microseconds of CPU of one unit, or 0
	// for a server. No two turns have the same number.
	turn   func(ctx context.Context, number int) (float64, error)
	units  int       // of a server's turn
	micros []float64 // of CPU for a unit, by round
}

// serverSide returns the side of a server that gets a load of some units in each turn.
func serverSide(pid, units int, load func(ctx context.Context, number int) error) *side {
	return &side{pid: pid, units: units, turn: func(ctx context.Context, number int) (float64, error) { return 0, load(ctx, number) }}
}

// bareSide returns a side that measures itself.
func bareSide(measure func(context.Context) (float64, error)) *side {
	return &side{turn: func(ctx context.Context, _ int) (float64, error) { return measure(ctx) }}
}

// takeTurns measures sides in rounds. In a round all sides have several short turns, one
// after the other, so that each of them sees the same machine. A round ends when the
// servers have nothing left to do. The first round warms up and does not count.
func takeTurns(ctx context.Context, sides ...*side) error {
	for round := range 1 + rounds {
		if err := takeRound(ctx, round, sides); err != nil {
			return err
		}
	}
	for _, s := range sides {
		s.micros = s.micros[1:]
	}
	return nil
}

func takeRound(ctx context.Context, round int, sides []*side) error {
	before, pids, err := serverTimes(sides)
	if err != nil {
		return err
	}
	measured := make([]float64, len(sides))
	for part := range parts {
		for i, s := range sides {
			micros, err := s.turn(ctx, round*parts+part)
			if err != nil {
				return err
			}
			measured[i] += micros / parts
		}
	}
	settle, cancel := context.WithTimeout(ctx, usualRest+settleLimit)
	defer cancel()
	if err := idle(settle, pids, usualRest); err != nil && settle.Err() == nil {
		return err
	}
	after, _, err := serverTimes(sides)
	if err != nil {
		return err
	}
	for i, s := range sides {
		if s.pid != 0 {
			measured[i] = float64((after[i] - before[i]).Nanoseconds()) / 1000 / parts / float64(s.units)
		}
		s.micros = append(s.micros, measured[i])
	}
	return ctx.Err()
}

// serverTimes returns the CPU time of each server so far, at the index of its side.
func serverTimes(sides []*side) (times []time.Duration, pids []int, err error) {
	times = make([]time.Duration, len(sides))
	for i, s := range sides {
		if s.pid == 0 {
			continue
		}
		pids = append(pids, s.pid)
		if times[i], err = cpuTime(s.pid); err != nil {
			return nil, nil, err
		}
	}
	return times, pids, nil
}
