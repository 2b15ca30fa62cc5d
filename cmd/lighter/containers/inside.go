package containers

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/cli-runtime/pkg/printers"
)

// Diff prints what a container has changed on its file system: A for added, C for
// changed, D for deleted.
func (c *Cluster) Diff(ctx context.Context, name string) error {
	agent, container, err := c.locate(ctx, name)
	if err != nil {
		return err
	}
	changes, err := agent.Changes(ctx, container)
	if err != nil {
		return fmt.Errorf("container %s: %w", name, err)
	}
	for _, change := range changes {
		fmt.Fprintln(c.Out, change.Kind, change.Path)
	}
	return nil
}

// Top prints the processes of a running container, by the host's numbers.
func (c *Cluster) Top(ctx context.Context, name string) error {
	agent, container, err := c.locate(ctx, name)
	if err != nil {
		return err
	}
	processes, err := agent.Top(ctx, container)
	if err != nil {
		return fmt.Errorf("container %s: %w", name, err)
	}
	table := printers.GetNewTabWriter(c.Out)
	fmt.Fprintln(table, "UID\tPID\tPPID\tSTIME\tTIME\tCMD")
	for _, p := range processes {
		fmt.Fprintf(table, "%d\t%d\t%d\t%s\t%s\t%s\n", p.UID, p.PID, p.PPID, p.Started.Local().Format("15:04"), clock(p.CPU), strings.Join(p.Command, " "))
	}
	return table.Flush()
}

// clock is ps(1)'s cumulative time.
func clock(d time.Duration) string {
	s := int64(d / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}
