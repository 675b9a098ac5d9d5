package main

import (
	"flag"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/manual"
)

var update = flag.Bool("update", false, "calculate deploy/scale.json again from its measured figures")

const root = "../../.."

// What deploy/scale.json says on paper follows from the figures in it.
func TestDerived(t *testing.T) {
	f, err := manual.ReadFigures(root, "deploy/scale.json")
	if err != nil {
		t.Fatal(err)
	}
	measured := slices.DeleteFunc(slices.Clone(f.Groups), func(g manual.FigureGroup) bool { return len(g.Rows) == 0 })
	want := append(measured, derived(measured)...)
	if *update {
		f.Groups = want
		if err := f.Publish(root, scaleArg); err != nil {
			t.Fatal(err)
		}
		return
	}
	if len(want) != len(f.Groups) {
		t.Fatalf("%d groups, want %d; run go test ./internal/e2e/bench -update", len(f.Groups), len(want))
	}
	for i, g := range want {
		if f.Groups[i].Text != g.Text {
			t.Errorf("%s: %s does not follow from its figures; run go test ./internal/e2e/bench -update\nhas:  %s\nwant: %s", g.Name, filepath.Join(root, "deploy/scale.json"), f.Groups[i].Text, g.Text)
		}
	}
}

// Made-up figures have results that can be checked by hand.
func TestPaper(t *testing.T) {
	groups := derived([]manual.FigureGroup{
		{Name: policyGroup, Rows: []manual.FigureRow{
			{Server: "16 connections", PSS: 100, Descriptors: 36, Goroutines: 50}, {Server: "2000 connections", PSS: 100 + 1984./64, Descriptors: 2020, Goroutines: 2034}}},
		{Name: milterGroup, Rows: []manual.FigureRow{
			{Server: "verifying, 16 sessions", PSS: 30}, {Server: "verifying, 500 sessions", PSS: 30 + 484./4, CPU: 6}}},
		{Name: clusterGroup, Rows: []manual.FigureRow{{Server: "3 masters", Load: "known senders", CPU: 1.2}}},
		{Name: "A greylist of 1 million triplets", Rows: []manual.FigureRow{{Server: "Redis", PSS: 200}}},
	})
	for i, lines := range [][]string{
		{
			"A policy connection: 16.0 KiB of memory (PSS), 1.00 descriptors, 1.00 goroutines.",
			"A session that signs: – KiB of memory (PSS), – descriptors, – goroutines.",
			"A session that verifies: 256 KiB of memory (PSS), – descriptors, – goroutines.",
		}, {
			"100000000 mails a day are 1157 a second, and at a peak of 3 times the mean 3472.",
			"Greylisting with a Cluster of 3 masters (known senders): 120 µs of CPU a mail, Redis included: 0.417 processors at the peak.",
			"Verifying (500 sessions): 600 µs of CPU a mail of 10 KB: 2.08 processors at the peak.",
			"Together 2.50 processors at the peak; with 2 times that for failures and larger mails, 5.00.",
			"Memory of a pair of daemons with 2000 policy connections and 500 sessions: 131 and 151 MiB (PSS).",
			"100000000 triplets in Redis, at 210 octets each: 19.5 GiB, shared by the masters; a replica of each needs as much again.",
		},
	} {
		for _, line := range lines {
			if !strings.Contains(groups[i].Text, "- "+line) {
				t.Errorf("%s has no line %q:\n%s", groups[i].Name, line, groups[i].Text)
			}
		}
	}
}
