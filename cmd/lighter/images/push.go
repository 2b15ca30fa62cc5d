package images

import (
	"context"
	"fmt"

	"lighter.dev/lighter/api/agentapi"
)

// Push sends an image to the registry in its name.
func (c *Cluster) Push(ctx context.Context, ref string, quiet bool, credentials func(host string) (agentapi.Credentials, error)) error {
	row, err := c.find(ctx, ref)
	switch {
	case err != nil:
		return err
	case row.Digest == "":
		return fmt.Errorf("%s has no content yet: \"lighter describe image %s\" says why", ref, row.Object)
	case row.Name == "":
		return fmt.Errorf("%s has no name that would lead to a registry: \"lighter tag %s REGISTRY/NAME\" gives one", ref, ref)
	}
	parts := familiar(row.Name)
	login, err := credentials(registryOf(row.Name))
	if err != nil {
		return err
	}
	if !quiet {
		fmt.Fprintf(c.Out, "The push refers to repository [%s]\n", withoutTag(row.Name))
	}
	result, err := c.follow(quiet, func(report func(agentapi.Progress)) (agentapi.Result, error) {
		return c.push(ctx, row, login, report)
	})
	if err != nil {
		return fmt.Errorf("push %s: %w", shortName(row.Name), err)
	}
	if quiet {
		fmt.Fprintln(c.Out, row.Name)
		return nil
	}
	fmt.Fprintf(c.Out, "%s: digest: %s size: %d\n", parts[1], result.Digest, result.Size)
	return nil
}

func (c *Cluster) push(ctx context.Context, row Row, login agentapi.Credentials, report func(agentapi.Progress)) (agentapi.Result, error) {
	if row.Object != "" {
		object, err := c.Object(row.Namespace, row.Object)
		if err != nil {
			return agentapi.Result{}, err
		}
		return object.Push(ctx, row.Name, login, report)
	}
	agent, err := c.Agent(row.Hosts[0])
	if err != nil {
		return agentapi.Result{}, err
	}
	return agent.Push(ctx, c.Namespace, row.Name, "", login, report)
}
