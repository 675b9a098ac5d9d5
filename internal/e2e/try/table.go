package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// widths are the widths of the columns in characters: together they fit into 120
// columns.
var widths = []int{30, 42, 44}

// printTable prints rows with a line between them. Cells wrap at spaces.
func printTable(out io.Writer, rows [][]string) {
	for i, row := range rows {
		printRow(out, row)
		if i < len(rows)-1 {
			rule := make([]string, len(widths))
			for c, w := range widths {
				rule[c] = strings.Repeat("-", w)
			}
			printRow(out, rule)
		}
	}
}

func printRow(out io.Writer, row []string) {
	cells := make([][]string, len(row))
	height := 0
	for c, text := range row {
		cells[c] = wrap(text, widths[c])
		height = max(height, len(cells[c]))
	}
	for y := range height {
		var line strings.Builder
		for c := range cells {
			cell := ""
			if y < len(cells[c]) {
				cell = cells[c][y]
			}
			fmt.Fprintf(&line, "%-*s  ", widths[c], cell)
		}
		fmt.Fprintln(out, strings.TrimRight(line.String(), " "))
	}
}

// wrap breaks text at spaces into lines of at most width characters. A longer word gets
// its own line.
func wrap(text string, width int) []string {
	var lines []string
	var line string
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}
