package milter

import "time"

// pulseEvery is how often the MTA is asked to keep waiting. Postfix waits 300 s at
// the end of a message, and each progress packet starts that time again.
const pulseEvery = 10 * time.Second

// pulse sends progress packets while a handler works. Until the first one is due it
// needs only a timer, no goroutine.
type pulse struct {
	timer *time.Timer
	quit  chan struct{}
	done  chan struct{}
}

// startPulse calls progress every pulseEvery until stop is called. If progress fails,
// the MTA is gone: then lost is called and the pulse ends.
func startPulse(progress func() error, lost func()) *pulse {
	p := &pulse{quit: make(chan struct{}), done: make(chan struct{})}
	p.timer = time.AfterFunc(pulseEvery, func() {
		defer close(p.done)
		p.run(progress, lost)
	})
	return p
}

func (p *pulse) run(progress func() error, lost func()) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		if err := progress(); err != nil {
			lost()
			return
		}
		select {
		case <-tick.C:
		case <-p.quit:
			return
		}
	}
}

// stop returns when no progress packet will be sent any more.
func (p *pulse) stop() {
	if p.timer.Stop() {
		return
	}
	close(p.quit)
	<-p.done
}
