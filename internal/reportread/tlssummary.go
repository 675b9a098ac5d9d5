package reportread

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// TLSDomain is what was reported about sessions with the mail hosts of one domain.
type TLSDomain struct {
	Domain     string       `json:"domain"`
	Begin      time.Time    `json:"begin"`
	End        time.Time    `json:"end"`
	Reports    int          `json:"reports"`
	Reporters  []Count      `json:"reporters"` // by sessions
	Successful int64        `json:"successful"`
	Failed     int64        `json:"failed"`
	Failures   []*TLSCount  `json:"failures"`
	Days       []*TLSDayRow `json:"days"`

	reporters counted
	failures  map[tlsKind]int64
	days      map[string]*TLSDayRow
}

// TLSCount is a kind of failure, and how many sessions had it.
type TLSCount struct {
	tlsKind
	Sessions int64 `json:"sessions"`
}

type tlsKind struct {
	Policy string `json:"policy"` // sts, tlsa, no-policy-found
	Result string `json:"result"`
	Host   string `json:"host,omitempty"`   // ours
	Sender string `json:"sender,omitempty"` // the address that sent
	Reason string `json:"reason,omitempty"`
}

func (k *tlsKind) octets() int {
	return len(k.Policy) + len(k.Result) + len(k.Host) + len(k.Sender) + len(k.Reason)
}

// TLSDayRow is one UTC day.
type TLSDayRow struct {
	Day        string `json:"day"`
	Successful int64  `json:"successful"`
	Failed     int64  `json:"failed"`
}

func (r *TLSReport) key() key {
	domain := ""
	for _, p := range r.Policies {
		domain += p.Domain + " "
	}
	return keyOf("tls", r.Org, r.ID, domain, r.Begin, r.End)
}

// Day returns the UTC day that has most of the report.
func (r *TLSReport) Day() time.Time { return (&Report{Begin: r.Begin, End: r.End}).Day() }

// AddTLS counts a TLS report.
func (t *Tally) AddTLS(r *TLSReport) {
	if !t.isNew(r.key()) {
		return
	}
	t.makeRoom()
	counted := make(map[*TLSDomain]bool)
	for _, p := range r.Policies {
		if !t.wants(p.Domain, r.Day()) {
			continue
		}
		d := t.tlsDomain(p.Domain, r)
		if !counted[d] {
			d.Reports++
			counted[d] = true
		}
		t.takeTLS(d, p, r)
	}
	if len(counted) > 0 {
		t.summary.Reports++
	}
}

func (t *Tally) tlsDomain(name string, r *TLSReport) *TLSDomain {
	if t.tls[name] == nil && len(t.tls) >= maxDomains {
		name = others
	}
	d := t.tls[name]
	if d == nil {
		d = &TLSDomain{Domain: name, Begin: r.Begin, reporters: counted{most: maxNames}, failures: map[tlsKind]int64{}, days: map[string]*TLSDayRow{}}
		t.tls[name] = d
	}
	if r.Begin.Before(d.Begin) {
		d.Begin = r.Begin
	}
	if r.End.After(d.End) {
		d.End = r.End
	}
	return d
}

func (t *Tally) takeTLS(d *TLSDomain, p TLSPolicy, r *TLSReport) {
	d.Successful, d.Failed = plus(d.Successful, p.Successful), plus(d.Failed, p.Failed)
	d.reporters.add(r.Org, p.Successful+p.Failed)
	day := r.Day().Format(time.DateOnly)
	if d.days[day] == nil && len(d.days) >= maxDays {
		day = time.Time{}.Format(time.DateOnly)
	}
	if d.days[day] == nil {
		d.days[day] = &TLSDayRow{Day: day}
	}
	row := d.days[day]
	row.Successful, row.Failed = plus(row.Successful, p.Successful), plus(row.Failed, p.Failed)
	for _, f := range p.Failures {
		kind := tlsKind{Policy: p.Type, Result: f.Result, Host: f.Host, Sender: f.Sender, Reason: cmp.Or(f.Reason, f.Info)}
		if _, known := d.failures[kind]; !known && (len(d.failures) >= maxFailures || !t.fits(kind.octets())) {
			kind = tlsKind{Policy: others}
		}
		d.failures[kind] = plus(d.failures[kind], f.Sessions)
	}
}

func (d *TLSDomain) settle() {
	d.Reporters = d.reporters.list()
	d.Days = slices.SortedFunc(maps.Values(d.days), func(a, b *TLSDayRow) int { return cmp.Compare(a.Day, b.Day) })
	d.Failures = make([]*TLSCount, 0, len(d.failures))
	for kind, n := range d.failures {
		d.Failures = append(d.Failures, &TLSCount{kind, n})
	}
	slices.SortFunc(d.Failures, func(a, b *TLSCount) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Result, b.Result), cmp.Compare(a.Host, b.Host),
			cmp.Compare(a.Sender, b.Sender), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Policy, b.Policy))
	})
}
