package main

import (
	"fmt"
	"strings"

	"github.com/postern-mail/postern/internal/manual"
)

// The groups and servers of scale whose figures are used in calculations.
const (
	policyGroup  = "Policy connections"
	milterGroup  = "Milter sessions"
	clusterGroup = "Redis Cluster"
)

func connections(n int) string { return fmt.Sprintf("%d connections", n) }

func sessions(role string, n int) string { return fmt.Sprintf("%s, %d sessions", role, n) }

func masterCount(n int) string { return fmt.Sprintf("%d masters", n) }

func tripletsGroup(count int) string {
	return fmt.Sprintf("A greylist of %d million triplets", count/1_000_000)
}

// The site of paper.
const (
	siteMails    = 100_000_000 // a day
	sitePeak     = 3           // times the mean of a day
	siteTriplets = 100_000_000 // that the greylist remembers
	siteReserve  = 2           // times what is needed
	secondsADay  = 24 * 60 * 60
)

// scaled holds the figures of a scale run. A figure that was not measured is 0, and
// what is calculated from it is shown as not measured.
type scaled []manual.FigureGroup

// row returns the row of a server.
func (s scaled) row(group, server, load string) (r manual.FigureRow) {
	for _, g := range s {
		for _, r := range g.Rows {
			if g.Name == group && r.Server == server && r.Load == load && r.Missing == "" {
				return r
			}
		}
	}
	return r
}

// derived returns what is calculated from the figures of a scale run.
func derived(groups []manual.FigureGroup) []manual.FigureGroup {
	s := scaled(groups)
	return []manual.FigureGroup{s.connection(), s.paper()}
}

// connection calculates what a connection holds: the difference between many and few of
// them, divided by their number.
func (s scaled) connection() manual.FigureGroup {
	var lines []string
	for _, c := range []struct {
		what, group, few, many string
		more                   int // connections
	}{
		{"A policy connection", policyGroup, connections(greylistConns), connections(manyPolicyConns), manyPolicyConns - greylistConns},
		{"A session that signs", milterGroup, sessions("signing", milterConns), sessions("signing", manyMilterConns), manyMilterConns - milterConns},
		{"A session that verifies", milterGroup, sessions("verifying", milterConns), sessions("verifying", manyMilterConns), manyMilterConns - milterConns},
	} {
		few, many := s.row(c.group, c.few, ""), s.row(c.group, c.many, "")
		each := func(of func(manual.FigureRow) float64) float64 {
			if of(few) == 0 || of(many) == 0 {
				return 0
			}
			return (of(many) - of(few)) / float64(c.more)
		}
		lines = append(lines, fmt.Sprintf("- %s: %s KiB of memory (PSS), %s descriptors, %s goroutines.", c.what,
			manual.Figure(1024*each(func(r manual.FigureRow) float64 { return r.PSS })),
			manual.Figure(each(func(r manual.FigureRow) float64 { return r.Descriptors })),
			manual.Figure(each(func(r manual.FigureRow) float64 { return r.Goroutines }))))
	}
	return manual.FigureGroup{Name: "What a connection holds",
		Text: "Calculated from the figures above, under load: the difference between many and few connections, divided by their number.\n\n" + strings.Join(lines, "\n")}
}

// paper calculates what a site needs.
func (s scaled) paper() manual.FigureGroup {
	const peak = float64(siteMails) * sitePeak / secondsADay
	verifier := s.row(milterGroup, sessions("verifying", manyMilterConns), "")
	policy := s.row(policyGroup, connections(manyPolicyConns), "")
	greylist := s.row(clusterGroup, masterCount(3), "known senders").CPU / 10_000
	verify := verifier.CPU / 10_000
	triplet := s.row(tripletsGroup(smallGreylist), redisAlone, "").PSS * (1 << 20) / smallGreylist
	needed := (greylist + verify) * peak
	lines := []string{
		fmt.Sprintf("- %d mails a day are %s a second, and at a peak of %d times the mean %s.", siteMails, manual.Figure(float64(siteMails)/secondsADay), sitePeak, manual.Figure(peak)),
		fmt.Sprintf("- Greylisting with a Cluster of 3 masters (known senders): %s µs of CPU a mail, Redis included: %s processors at the peak.", manual.Figure(greylist*1e6), manual.Figure(greylist*peak)),
		fmt.Sprintf("- Verifying (%d sessions): %s µs of CPU a mail of 10 KB: %s processors at the peak.", manyMilterConns, manual.Figure(verify*1e6), manual.Figure(verify*peak)),
		fmt.Sprintf("- Together %s processors at the peak; with %d times that for failures and larger mails, %s.", manual.Figure(needed), siteReserve, manual.Figure(siteReserve*needed)),
		fmt.Sprintf("- Memory of a pair of daemons with %d policy connections and %d sessions: %s and %s MiB (PSS).", manyPolicyConns, manyMilterConns, manual.Figure(policy.PSS), manual.Figure(verifier.PSS)),
		fmt.Sprintf("- %d triplets in Redis, at %s octets each: %s GiB, shared by the masters; a replica of each needs as much again.", siteTriplets, manual.Figure(triplet), manual.Figure(triplet*siteTriplets/(1<<30))),
	}
	return manual.FigureGroup{Name: "On paper: 100 million mails a day",
		Text: "Calculated from the figures above, not measured. One recipient a mail; Postfix itself needs more than Postern and is not counted.\n\n" + strings.Join(lines, "\n")}
}
