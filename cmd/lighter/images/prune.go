package images

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"lighter.dev/lighter/api/agentapi"
)

// PruneOptions are the flags of "lighter system prune".
type PruneOptions struct {
	// All removes every image that no container uses, not only those without a
	// name.
	All bool
	// Until spares what came within that time; 0 spares nothing.
	Until time.Duration
	// Force does not ask.
	Force bool
}

// Prune removes from all Ready hosts the images that nothing needs. What Image
// objects declare stays.
func (c *Cluster) Prune(ctx context.Context, options PruneOptions) error {
	if !options.Force {
		if err := c.confirm(ctx, options.question()); err != nil {
			return err
		}
	}
	hosts, silent, err := c.hosts(ctx)
	if err != nil {
		return err
	}
	for _, host := range silent {
		c.warn("%s is not Ready: nothing is removed there", host)
	}
	var mu sync.Mutex
	var gone agentapi.Removed
	failed := c.each(ctx, hosts, func(ctx context.Context, _ string, agent *agentapi.Client) error {
		removed, err := agent.Prune(ctx, options.All, options.Until)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		gone.Untagged = append(gone.Untagged, removed.Untagged...)
		gone.Deleted = append(gone.Deleted, removed.Deleted...)
		gone.Reclaimed += removed.Reclaimed
		return nil
	})
	c.tell(gone)
	fmt.Fprintf(c.Out, "Total reclaimed space: %s\n", size(gone.Reclaimed))
	if len(failed) > 0 {
		return fmt.Errorf("prune: %w", sameForAll(failed, len(hosts)))
	}
	return nil
}

func (o PruneOptions) question() string {
	what := "all images without a name"
	if o.All {
		what = "all images that no container uses and no Image object declares"
	}
	if o.Until > 0 {
		what += fmt.Sprintf(", if they came more than %s ago", o.Until)
	}
	return "This removes from every host " + what + "."
}

// confirm asks on the terminal. Where there is none, -f is the answer.
func (c *Cluster) confirm(ctx context.Context, question string) error {
	if _, terminal := terminalOf(c.In); !terminal {
		return errors.New("there is no terminal to ask on: -f removes without a question")
	}
	fmt.Fprintf(c.Err, "%s\nAre you sure you want to continue? [y/N] ", question)
	line, err := readLine(ctx, c.In)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(line) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was removed")
}
