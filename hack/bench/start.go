package main

import "context"

// runs is how often a cluster is made from nothing: enough for a median.
const runs = 3

// measureStart makes clusters of one host, and leaves the last one.
func measureStart(ctx context.Context, b *bench) error {
	var api, node []float64
	for range runs {
		times, err := b.fresh(ctx, 1)
		if err != nil {
			return err
		}
		api = append(api, times.api-times.started)
		node = append(node, times.node-times.started)
	}
	b.results.set(apiReady, median(api), "first start, with CA and certificates to make; median of %d", runs)
	b.results.set(nodeReady, median(node), "first start, joining included; median of %d", runs)
	return nil
}

// measureHosts makes clusters of three hosts, and leaves the last one.
func measureHosts(ctx context.Context, b *bench) error {
	var all []float64
	for range runs {
		times, err := b.fresh(ctx, 3)
		if err != nil {
			return err
		}
		all = append(all, times.all)
	}
	b.results.set(hostsReady, median(all), "lighter local up --hosts 3; median of %d", runs)
	return nil
}
