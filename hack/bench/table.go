package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// results is what has been measured so far, by the budget's id.
type results struct {
	values map[string]float64
	notes  map[string]string
	swarm  map[string]float64
	// noSwarm says why the Swarm column is empty.
	noSwarm string
}

func newResults() *results {
	return &results{values: map[string]float64{}, notes: map[string]string{}, swarm: map[string]float64{}}
}

// set keeps a value with a word on how it came about.
func (r *results) set(id string, value float64, note string, args ...any) {
	r.values[id], r.notes[id] = value, fmt.Sprintf(note, args...)
}

// print writes the table as Markdown. With all it also lists rows that have no
// value: those could not be measured.
func (r *results) print(out io.Writer, all bool) {
	rows := [][]string{{"", "budget", "reached", "met", "Swarm", "how"}}
	for _, b := range budgets {
		value, ok := r.values[b.id]
		peer, compared := r.swarm[b.id]
		if !ok && !compared && !all {
			continue
		}
		row := []string{b.what, b.text(b.limit), "–", "–", "–", r.notes[b.id]}
		if ok {
			row[2], row[3] = b.text(value), "NO"
			if b.met(value) {
				row[3] = "yes"
			}
		}
		if compared {
			row[4] = b.text(peer)
		}
		rows = append(rows, row)
	}
	printRows(out, rows)
	if r.noSwarm != "" {
		fmt.Fprintf(out, "\nDocker Swarm was not measured: %s.\n", r.noSwarm)
	}
}

// text is a value as a person reads it: three digits that count.
func (b budget) text(value float64) string {
	if b.unit == "yes/no" {
		if value == yes {
			return "yes"
		}
		return "no"
	}
	return strings.TrimSpace(digits(value) + " " + b.unit)
}

// digits rounds to three significant digits, and writes no exponent.
func digits(value float64) string {
	if value == 0 {
		return "0"
	}
	decimals := 2 - int(math.Floor(math.Log10(math.Abs(value))))
	scale := math.Pow(10, float64(decimals))
	return strconv.FormatFloat(math.Round(value*scale)/scale, 'f', -1, 64)
}

// printRows aligns the columns; the first row is the head.
func printRows(out io.Writer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for i, row := range rows {
		for j, cell := range row {
			fmt.Fprintf(out, "| %s%s ", cell, strings.Repeat(" ", width[j]-utf8.RuneCountInString(cell)))
		}
		fmt.Fprintln(out, "|")
		if i == 0 {
			for _, w := range width {
				fmt.Fprintf(out, "|%s", strings.Repeat("-", w+2))
			}
			fmt.Fprintln(out, "|")
		}
	}
}
