package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"

	"lighter.dev/lighter/api/agentapi"
)

// PullOptions are the flags of "lighter pull".
type PullOptions struct {
	// Node is the only host that pulls; "" is all that are Ready.
	Node  string
	Quiet bool
	// Credentials are for the image's registry.
	Credentials agentapi.Credentials
}

// Pull fetches an image from its registry to hosts, side by side.
func (c *Cluster) Pull(ctx context.Context, ref string, options PullOptions) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return fmt.Errorf("image %q: %w", ref, err)
	}
	full := reference.TagNameOnly(named).String()
	if !options.Quiet && reference.IsNameOnly(named) {
		fmt.Fprintln(c.Out, "Using default tag: latest")
	}
	hosts, err := c.pullers(ctx, options.Node)
	if err != nil {
		return err
	}
	digests, failed := c.pullAll(ctx, hosts, full, options)
	if len(failed) > 0 {
		return fmt.Errorf("pull %s: %w", ref, sameForAll(failed, len(hosts)))
	}
	if !options.Quiet {
		for _, digest := range digests {
			fmt.Fprintln(c.Out, "Digest:", digest)
		}
	}
	if len(digests) > 1 {
		c.warn("hosts got different versions: %s was pushed in between; pull it again", ref)
	}
	fmt.Fprintln(c.Out, full)
	return nil
}

func (c *Cluster) pullers(ctx context.Context, node string) ([]string, error) {
	ready, silent, err := c.hosts(ctx)
	switch {
	case err != nil:
		return nil, err
	case node != "" && slices.Contains(ready, node):
		return []string{node}, nil
	case node != "" && slices.Contains(silent, node):
		return nil, fmt.Errorf("host %s is not Ready", node)
	case node != "":
		return nil, fmt.Errorf("there is no host %s: there are %s", node, strings.Join(append(ready, silent...), ", "))
	case len(ready) == 0:
		return nil, errors.New("no host is Ready")
	case len(silent) > 0:
		c.warn("not Ready, so they do not pull: %s", strings.Join(silent, ", "))
	}
	return ready, nil
}

// pullAll returns the digests that hosts got, which is one but for a push in
// between.
func (c *Cluster) pullAll(ctx context.Context, hosts []string, full string, options PullOptions) (digests []string, failed []hostError) {
	var mu sync.Mutex
	work := func(show func(host string) func(agentapi.Progress)) {
		failed = c.each(ctx, hosts, func(ctx context.Context, host string, agent *agentapi.Client) error {
			report := show(host)
			result, err := agent.Pull(ctx, c.Namespace, full, options.Credentials, report)
			if err != nil {
				return err
			}
			if report != nil {
				report(agentapi.Progress{Status: "Pull complete"})
			}
			mu.Lock()
			defer mu.Unlock()
			digests = append(digests, result.Digest)
			return nil
		})
	}
	if options.Quiet {
		work(func(string) func(agentapi.Progress) { return nil })
	} else {
		display(c.Err, func(report func(jsonstream.Message)) {
			work(func(host string) func(agentapi.Progress) { return hostReport(host, len(hosts), report) })
		})
	}
	slices.Sort(digests)
	return slices.Compact(digests), failed
}

// sameForAll says once what went wrong everywhere.
func sameForAll(failed []hostError, hosts int) error {
	differs := slices.ContainsFunc(failed, func(e hostError) bool { return e.err.Error() != failed[0].err.Error() })
	if len(failed) == hosts && !differs {
		return failed[0].err
	}
	return join(failed)
}
