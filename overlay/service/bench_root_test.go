package service

import (
	"log/slog"
	"slices"
	"sort"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/knftables"
)

// TestOneEndpointChangeIsFast measures, on the real kernel, how long one endpoint
// change takes on a host of a cluster with 1,000 services of 5 endpoints: a fraction
// of what writing all of it takes on the same machine.
func TestOneEndpointChangeIsFast(t *testing.T) {
	enterNetns(t)
	nft, err := knftables.New(knftables.IPv4Family, TableName, knftables.NoObjectCommentEmulation)
	if err != nil {
		t.Fatal(err)
	}
	f := &family{name: knftables.IPv4Family, nft: nft, log: slog.New(slog.DiscardHandler)}
	services, all := cluster(1000, 5)
	for _, s := range services {
		s.UID = types.UID(s.Name)
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	start := time.Now()
	if _, err := f.apply(t.Context(), build(services, all)); err != nil {
		t.Fatal(err)
	}
	full := time.Since(start)
	t.Logf("first write of 1,000 services × 5 endpoints: %v", full)
	five := all[500].Endpoints
	var took []time.Duration
	for i := range 40 {
		all[500] = all[500].DeepCopy()
		all[500].Endpoints = five[:4+i%2]
		start := time.Now()
		n, err := f.apply(t.Context(), build(services, all))
		if err != nil || n == 0 {
			t.Fatalf("%d operations, %v", n, err)
		}
		took = append(took, time.Since(start))
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	// The quickest tenth is what the code takes, whatever else the machine is doing.
	quick := took[len(took)/10]
	t.Logf("one endpoint change (build + diff + nft): p10 %v, p50 %v, max %v", quick, took[len(took)/2], slices.Max(took))
	if quick > full/2 {
		t.Errorf("an endpoint change takes %v, all the services %v", quick, full)
	}
}

func BenchmarkBuildAndDiff1000x5(b *testing.B) {
	services, all := cluster(1000, 5)
	old := build(services, all)
	fake := knftables.NewFake(knftables.IPv4Family, TableName)
	changed := all[500].DeepCopy()
	changed.Endpoints = changed.Endpoints[:4]
	all[500] = changed
	b.ReportAllocs()
	for b.Loop() {
		tx := fake.NewTransaction()
		Diff(tx, old, build(services, all))
		if tx.NumOperations() == 0 {
			b.Fatal("no change found")
		}
	}
}
