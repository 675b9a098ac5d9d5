package maillog

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

const (
	// maxNames bounds the names of one kind that are counted.
	maxNames = 100_000
	// maxWords bounds the words of one kind, such as reasons. The daemons have far fewer,
	// but a line of another program can look like a record.
	maxWords = 1000
	// otherWord is counted for words beyond maxWords.
	otherWord = "(other)"
)

// Summary has counts for a whole log. Senders, recipients, clients and logins are counted
// once for each mail.
type Summary struct {
	Since   time.Time  `json:"since"`
	Until   time.Time  `json:"until"`
	Records int        `json:"records"`
	Mails   int        `json:"mails"`
	Reasons []Decision `json:"reasons"`

	Senders    []Count `json:"senders"`
	Recipients []Count `json:"recipients"`
	Clients    []Count `json:"clients"`
	Logins     []Count `json:"logins"`
	// Rough means that there were more names than can be counted. Rare names may be
	// missing, and counts may be too small.
	Rough bool `json:"rough,omitempty"`

	Hours []Hour `json:"hours"`
	// Greylisted is how long mails waited because of the greylist, in seconds.
	// Durations is how long each daemon took for its replies, in milliseconds.
	Greylisted Spread            `json:"greylisted_seconds"`
	Durations  map[string]Spread `json:"duration_ms"`
}

// Decision counts the records of one verdict and reason. A record in which a check in the
// shadow objected counts for that check too.
type Decision struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Mode    string `json:"mode"`
	Count   int    `json:"count"`
}

// Count counts the mails of a name.
type Count struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

// Hour counts the records of one hour.
type Hour struct {
	Hour     time.Time      `json:"hour"`
	Verdicts map[string]int `json:"verdicts"`
}

// Spread describes the distribution of many values, with three digits.
type Spread struct {
	Count  int     `json:"count"`
	Median float64 `json:"median"`
	P90    float64 `json:"p90"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

// Counter makes a Summary.
type Counter struct {
	since, until                        time.Time
	records, mails                      int
	decisions                           map[Decision]int
	senders, recipients, clients, users names
	hours                               map[time.Time]map[string]int
	waits                               Values
	durations                           map[string]*Values
}

// NewCounter returns an empty counter.
func NewCounter() *Counter {
	return &Counter{decisions: map[Decision]int{}, hours: map[time.Time]map[string]int{}, durations: map[string]*Values{}}
}

// Add counts a mail.
func (c *Counter) Add(m *Mail) {
	c.mails++
	for _, e := range m.Entries {
		c.entry(e)
	}
	c.senders.add(m.Text(func(e *Entry) string { return e.Sender }))
	c.users.add(m.Text(func(e *Entry) string { return e.SASLUsername }))
	c.clients.add(Client(m.Text(func(e *Entry) string { return e.ClientName }), m.First().ClientAddress))
	for _, r := range m.Recipients {
		c.recipients.add(r)
	}
}

// Client returns a client in the form of Postfix: name[address]. To a milter, Postfix
// names a client without a name by its address in brackets.
func Client(name, address string) string {
	switch {
	case name == "" || name == address || name == "["+address+"]":
		return address
	case address == "":
		return name
	}
	return name + "[" + address + "]"
}

func (c *Counter) entry(e *Entry) {
	c.records++
	if c.since.IsZero() || e.Time.Before(c.since) {
		c.since = e.Time
	}
	if e.Time.After(c.until) {
		c.until = e.Time
	}
	c.decision(Decision{Check: cmp.Or(e.Check, "-"), Verdict: e.Verdict, Reason: e.Reason, Mode: e.Mode})
	if s := e.Watched(); s != nil {
		c.decision(Decision{Check: s.Check, Verdict: s.Verdict, Reason: s.Reason, Mode: s.Mode})
	}
	hour := e.Time.Truncate(time.Hour)
	if c.hours[hour] == nil && len(c.hours) < maxNames {
		c.hours[hour] = map[string]int{}
	}
	if counts := c.hours[hour]; counts != nil {
		counts[wordIn(counts, e.Verdict, otherWord)]++
	}
	daemon := wordIn(c.durations, e.Daemon, otherWord)
	if c.durations[daemon] == nil {
		c.durations[daemon] = new(Values)
	}
	c.durations[daemon].Add(e.Millis)
	if s := e.Step("greylist"); s != nil && s.Reason == string(record.GreylistWaited) {
		if waited, ok := Detail(s.Detail, "waited"); ok {
			if seconds, err := strconv.Atoi(strings.TrimSuffix(waited, "s")); err == nil {
				c.waits.Add(float64(seconds))
			}
		}
	}
}

func (c *Counter) decision(d Decision) {
	c.decisions[wordIn(c.decisions, d, Decision{Check: otherWord})]++
}

// wordIn returns the key under which a word is counted.
func wordIn[K comparable, V any](counts map[K]V, word, other K) K {
	if _, known := counts[word]; known || len(counts) < maxWords {
		return word
	}
	return other
}

// Detail returns the value of a name=value word of a step's detail.
func Detail(detail, name string) (value string, ok bool) {
	for word := range strings.FieldsSeq(detail) {
		if value, ok = strings.CutPrefix(word, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// Summary returns what was counted, with the top names of each kind.
func (c *Counter) Summary(top int) Summary {
	s := Summary{
		Since: c.since, Until: c.until, Records: c.records, Mails: c.mails,
		Senders: c.senders.top(top), Recipients: c.recipients.top(top), Clients: c.clients.top(top), Logins: c.users.top(top),
		Rough:      c.senders.forgot+c.recipients.forgot+c.clients.forgot+c.users.forgot > 0,
		Greylisted: c.waits.Spread(), Durations: map[string]Spread{},
	}
	for d, n := range c.decisions {
		d.Count = n
		s.Reasons = append(s.Reasons, d)
	}
	slices.SortFunc(s.Reasons, func(a, b Decision) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(a.Check, b.Check), strings.Compare(a.Reason, b.Reason), strings.Compare(a.Verdict, b.Verdict), strings.Compare(a.Mode, b.Mode))
	})
	for _, hour := range slices.SortedFunc(maps.Keys(c.hours), time.Time.Compare) {
		s.Hours = append(s.Hours, Hour{hour, c.hours[hour]})
	}
	for daemon, v := range c.durations {
		s.Durations[daemon] = v.Spread()
	}
	return s
}

// names counts names. When there are too many, all counts are reduced by one, and names
// with a count of zero are removed. So frequent names stay.
type names struct {
	counts map[string]int
	forgot int
}

func (n *names) add(name string) {
	if name == "" {
		return
	}
	if n.counts == nil {
		n.counts = make(map[string]int)
	}
	if _, known := n.counts[name]; !known && len(n.counts) >= maxNames {
		for other := range n.counts {
			if n.counts[other]--; n.counts[other] == 0 {
				delete(n.counts, other)
			}
		}
		n.forgot++
		return
	}
	n.counts[name]++
}

func (n *names) top(most int) []Count {
	all := make([]Count, 0, len(n.counts))
	for name, count := range n.counts {
		all = append(all, Count{name, count})
	}
	slices.SortFunc(all, func(a, b Count) int { return cmp.Or(b.Count-a.Count, strings.Compare(a.Name, b.Name)) })
	return all[:min(most, len(all))]
}

// Values counts numbers by their first three digits, which bounds their number.
type Values struct {
	counts map[float64]int
	n      int
	max    float64
}

func (v *Values) Add(x float64) {
	if v.counts == nil {
		v.counts = make(map[float64]int)
	}
	v.n++
	v.max = max(v.max, x)
	v.counts[threeDigits(x)]++
}

func threeDigits(x float64) float64 {
	if x <= 0 {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(x))-2)
	rounded := math.Round(x/unit) * unit
	exact, _ := strconv.ParseFloat(strconv.FormatFloat(rounded, 'g', 4, 64), 64)
	return exact
}

func (v *Values) Spread() Spread {
	s := Spread{Count: v.n, Max: v.max}
	sorted := slices.Sorted(maps.Keys(v.counts))
	at := func(share float64) float64 {
		rank := int(math.Ceil(share * float64(v.n)))
		for _, x := range sorted {
			if rank -= v.counts[x]; rank <= 0 {
				return x
			}
		}
		return 0
	}
	s.Median, s.P90, s.P99 = at(0.5), at(0.9), at(0.99)
	return s
}
