package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const stream = `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: broken\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:9: needs root: makes links\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
{"Action":"build-output","ImportPath":"q","Output":"q.go:1: no\n"}
not JSON
`
	var out strings.Builder
	s := summary{output: map[string]*strings.Builder{}}
	if err := s.read(strings.NewReader(stream), &out); err != nil {
		t.Fatal(err)
	}
	s.print(&out)
	for _, want := range []string{
		"b_test.go:7: broken", "FAIL\tp\t0.1s", "q.go:1: no", "not JSON",
		"1 tests passed, 1 failed, 1 skipped", "skipped TestC: needs root: makes links", "FAILED p TestB",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "RUN   TestA") {
		t.Error("shows the output of a test that passed")
	}
	if len(s.broken) != 2 {
		t.Errorf("broken: %v", s.broken)
	}
}
