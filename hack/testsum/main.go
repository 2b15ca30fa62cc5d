// Command testsum reads the output of "go test -json" and prints what a person
// wants to see: each package's closing line as go test prints it, the whole
// output of tests that failed, and a summary that also tells which tests were
// skipped and why. Its exit code is 1 if anything failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is one line of "go test -json" (go doc test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
}

// summary collects what the end tells.
type summary struct {
	passed, failed int
	skipped        []string
	broken         []string // packages and tests that failed
	output         map[string]*strings.Builder
}

func main() {
	s := summary{output: map[string]*strings.Builder{}}
	if err := s.read(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	s.print(os.Stdout)
	if len(s.broken) > 0 {
		os.Exit(1)
	}
}

func (s *summary) read(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // go itself speaks
			continue
		}
		s.add(e, out)
	}
	return lines.Err()
}

func (s *summary) add(e event, out io.Writer) {
	key := e.Package + " " + e.Test
	switch {
	case e.Action == "build-output":
		fmt.Fprint(out, e.Output)
	case e.Action == "output" && e.Test == "":
		if e.Output != "PASS\n" && !strings.Contains(e.Output, "[no test files]") {
			fmt.Fprint(out, e.Output)
		}
	case e.Action == "output":
		if s.output[key] == nil {
			s.output[key] = &strings.Builder{}
		}
		s.output[key].WriteString(e.Output)
	case e.Test == "" && e.Action == "fail":
		s.broken = append(s.broken, e.Package)
	case e.Test == "":
	case e.Action == "pass":
		s.passed++
	case e.Action == "skip":
		s.skipped = append(s.skipped, fmt.Sprintf("%s: %s", e.Test, reason(s.text(key))))
	case e.Action == "fail":
		s.failed++
		s.broken = append(s.broken, key)
		fmt.Fprint(out, s.text(key))
	}
	if e.Action == "pass" || e.Action == "skip" || e.Action == "fail" {
		delete(s.output, key)
	}
}

func (s *summary) text(key string) string {
	if s.output[key] == nil {
		return ""
	}
	return s.output[key].String()
}

// reason is what t.Skip said: the line that names a source file.
func reason(output string) string {
	for line := range strings.Lines(output) {
		if _, text, ok := strings.Cut(strings.TrimSpace(line), "_test.go:"); ok {
			if _, text, ok := strings.Cut(text, ": "); ok {
				return text
			}
		}
	}
	return "no reason given"
}

func (s *summary) print(out io.Writer) {
	fmt.Fprintf(out, "\n%d tests passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skipped))
	slices.Sort(s.skipped)
	for _, line := range s.skipped {
		fmt.Fprintln(out, "  skipped", line)
	}
	for _, name := range s.broken {
		fmt.Fprintln(out, "  FAILED", name)
	}
}
