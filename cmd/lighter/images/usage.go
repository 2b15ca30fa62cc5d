package images

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"k8s.io/cli-runtime/pkg/printers"

	"lighter.dev/lighter/api/agentapi"
)

// Usage prints how much room images, containers and builds take on the hosts,
// together or host by host.
func (c *Cluster) Usage(ctx context.Context, verbose bool) error {
	ready, silent, err := c.hosts(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	answers := map[string]agentapi.Usage{}
	failed := c.each(ctx, ready, func(ctx context.Context, host string, agent *agentapi.Client) error {
		usage, err := agent.Usage(ctx)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		answers[host] = usage
		return nil
	})
	if len(answers) == 0 && len(failed) > 0 {
		return fmt.Errorf("ask hosts: %w", sameForAll(failed, len(ready)))
	}
	for _, host := range silent {
		c.warn("%s is not Ready, so it is not in the sums", host)
	}
	for _, err := range failed {
		c.warn("%s is not in the sums: %v", err.host, err.err)
	}
	if verbose {
		return c.usageByHost(answers)
	}
	table := printers.GetNewTabWriter(c.Out)
	fmt.Fprintln(table, "TYPE\tTOTAL\tACTIVE\tSIZE\tRECLAIMABLE")
	for _, row := range sumUsage(answers) {
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\n", row.Type, row.Total, row.Active, size(row.Size), reclaimable(row))
	}
	return table.Flush()
}

func (c *Cluster) usageByHost(answers map[string]agentapi.Usage) error {
	table := printers.GetNewTabWriter(c.Out)
	fmt.Fprintln(table, "HOST\tTYPE\tTOTAL\tACTIVE\tSIZE\tRECLAIMABLE")
	for _, host := range slices.Sorted(maps.Keys(answers)) {
		for _, row := range answers[host].Rows {
			fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", host, row.Type, row.Total, row.Active, size(row.Size), reclaimable(row))
		}
		fmt.Fprintf(table, "%s\tDisk\t\t\t%s\t%s free\n", host, size(answers[host].Capacity), size(answers[host].Free))
	}
	return table.Flush()
}

// sumUsage adds up the hosts' rows, in the order of the first host.
func sumUsage(answers map[string]agentapi.Usage) []agentapi.UsageRow {
	var sums []agentapi.UsageRow
	for _, host := range slices.Sorted(maps.Keys(answers)) {
		for _, row := range answers[host].Rows {
			i := slices.IndexFunc(sums, func(sum agentapi.UsageRow) bool { return sum.Type == row.Type })
			if i < 0 {
				sums = append(sums, row)
				continue
			}
			sums[i].Total += row.Total
			sums[i].Active += row.Active
			sums[i].Size += row.Size
			sums[i].Reclaimable += row.Reclaimable
		}
	}
	return sums
}

// reclaimable is how much could be freed, with its part of the whole.
func reclaimable(row agentapi.UsageRow) string {
	if row.Size == 0 {
		return size(row.Reclaimable)
	}
	return fmt.Sprintf("%s (%d%%)", size(row.Reclaimable), row.Reclaimable*100/row.Size)
}
