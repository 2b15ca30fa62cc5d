package images

import "lighter.dev/lighter/api/agentapi"

// thisHost stands for the host whose agent is asked, where a host has a name.
const thisHost = "this host"

// OneHost is what the verbs about images work on where one agent is asked instead
// of a cluster. It answers for its host alone, also while there is no API: of Image
// objects it knows what they made it keep, under the names of namespace ("" is what
// was pulled).
func OneHost(agent *agentapi.Client, namespace string) *Cluster {
	return &Cluster{Namespace: namespace, Agent: func(string) (*agentapi.Client, error) { return agent, nil }}
}

// alone: there is no API to ask.
func (c *Cluster) alone() bool { return c.Kube == nil }
