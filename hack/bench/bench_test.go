package main

import (
	"strings"
	"testing"
)

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	tests := []struct {
		values []float64
		p      float64
		want   float64
	}{
		{[]float64{7}, 99, 7},
		{[]float64{7}, 0, 7},
		{[]float64{3, 1, 2}, 50, 2},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
	}
	for _, test := range tests {
		if got := percentile(test.values, test.p); got != test.want {
			t.Errorf("p%v of %d values is %v, want %v", test.p, len(test.values), got, test.want)
		}
	}
	if hundred[0] != 100 {
		t.Error("the caller's values were sorted")
	}
}

func TestDigits(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 0.8512: "0.851", 1.5: "1.5", 59.96: "60", 123.4: "123", 5512.3: "5510", 0.00123: "0.00123", -2.345: "-2.35"} {
		if got := digits(value); got != want {
			t.Errorf("digits(%v) = %q, want %q", value, got, want)
		}
	}
}

func TestMet(t *testing.T) {
	less, more := budget{limit: 60}, budget{limit: 0.85, atLeast: true}
	if !less.met(60) || less.met(60.1) || !more.met(0.85) || more.met(0.84) {
		t.Error("a budget is met at its limit, and missed beyond")
	}
}

func TestPrint(t *testing.T) {
	r := newResults()
	r.set(onePod, 61.44, "p90 %d ms", 80)
	r.set(partition, yes, "")
	r.swarm[onePod] = 570
	r.noSwarm = "of this"
	var out strings.Builder
	r.print(&out, false)
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 6 {
		t.Errorf("want a head, a rule, two rows and the reason:\n%s", out.String())
	}
	for _, want := range []string{"| 60 ms ", "| 61.4 ms ", "| NO ", "| 570 ms ", "| p90 80 ms ", "| yes ", "not measured: of this."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	r.print(&out, true)
	if n := strings.Count(out.String(), "\n|"); n != len(budgets)+1 {
		t.Errorf("%d rows, want all %d:\n%s", n-1, len(budgets), out.String())
	}
}

func TestParseUp(t *testing.T) {
	const report = `  0.02 s  network 10.89.185.0/24, the machine is 10.89.185.1
  0.05 s  host-1 (10.89.185.11): server started
  0.91 s  host-1: the API is ready at https://10.89.185.11:6443
  1.01 s  host-2 (10.89.185.12): agent started
  1.43 s  host-1 is Ready
  1.98 s  host-2 is Ready
cluster bench: 2 hosts Ready after 2.0 s
`
	got, err := parseUp(report)
	if want := (upTimes{started: 0.05, api: 0.91, node: 1.43, all: 1.98}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if _, err := parseUp("cluster bench: 1 hosts Ready after 0.1 s"); err == nil {
		t.Error("a report without steps is accepted")
	}
}

func TestParseStatus(t *testing.T) {
	name, mb, err := parseStatus("Name:\tconmon\nVmRSS:\t    2048 kB\nRssAnon:\t     512 kB\nRssFile:\t1 kB\n")
	if err != nil || name != "conmon" || mb != 0.5 {
		t.Errorf("got %s, %v MB, %v", name, mb, err)
	}
	if _, _, err := parseStatus("Name:\tkthreadd\n"); err == nil {
		t.Error("a process without memory is accepted")
	}
}

func TestParseIperf(t *testing.T) {
	got, err := parseIperf([]byte(`{"end": {"sum_sent": {"bits_per_second": 3e9}, "sum_received": {"bits_per_second": 2.5e9}}}`))
	if err != nil || got != 2.5 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", `{"error": "unable to connect"}`} {
		if _, err := parseIperf([]byte(bad)); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestMetric(t *testing.T) {
	const out = `goos: linux
BenchmarkSchedule5000Nodes/plain-2   	   10000	    178000 ns/op	      5618 pods/s	     120 B/op
PASS
`
	for unit, want := range map[string]float64{"pods/s": 5618, "ns/op": 178000} {
		if got, err := metric(out, unit); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", unit, got, err, want)
		}
	}
	if _, err := metric(out, "MB/s"); err == nil {
		t.Error("a figure that is not there was found")
	}
}
