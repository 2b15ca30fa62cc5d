package main

// budget is one row: what we promise ourselves.
type budget struct {
	id, what string
	limit    float64
	unit     string
	// atLeast: more is better.
	atLeast bool
}

// The rows. Times are in the unit that the limit is written in.
const (
	apiReady   = "api"
	nodeReady  = "node"
	hostsReady = "hosts"
	memServer  = "memory-server"
	memAgent   = "memory-agent"
	memPod     = "memory-pod"
	onePod     = "pod"
	pods50     = "pods-50"
	pods100    = "pods-100"
	lostHost   = "lost"
	egress     = "egress"
	lastPull   = "last-pull"
	partition  = "partition"
	stream     = "stream"
	endpoints  = "endpoints"
	scheduler  = "scheduler"
	rebuild    = "rebuild"
	rebuildOne = "rebuild-one"
	cold       = "cold"
)

// yes is the value of a budget that is met or not, without a figure.
const yes = 1

var budgets = []budget{
	{id: apiReady, what: "process start → API ready", limit: 1, unit: "s"},
	{id: nodeReady, what: "process start → node Ready (server)", limit: 2, unit: "s"},
	{id: hostsReady, what: "three hosts: nothing → all Ready", limit: 5, unit: "s"},
	{id: memServer, what: "anonymous memory, server + agent, idle", limit: 100, unit: "MB"},
	{id: memAgent, what: "anonymous memory, agent, idle", limit: 45, unit: "MB"},
	{id: memPod, what: "memory overhead of a one-container pod", limit: 1, unit: "MB"},
	{id: onePod, what: "one pod, create → Running, image present, p50", limit: 60, unit: "ms"},
	{id: pods50, what: "50 pods at once on one host", limit: 1.5, unit: "s"},
	{id: pods100, what: "100 pods at once on one host", limit: 3, unit: "s"},
	{id: lostHost, what: "host lost → replacements Running", limit: 8, unit: "s"},
	{id: egress, what: "image of 300 MB on three hosts at once: what leaves the registry ÷ image", limit: 1.1, unit: ""},
	{id: lastPull, what: "image of 300 MB on three hosts at once: last host ÷ first host", limit: 1.5, unit: ""},
	{id: partition, what: "no eviction in a partition of 5 s", limit: yes, unit: "yes/no", atLeast: true},
	{id: stream, what: "pod to pod across hosts ÷ host to host, one TCP stream", limit: 0.85, unit: "", atLeast: true},
	{id: endpoints, what: "endpoint change → every host's data plane, p99", limit: 100, unit: "ms"},
	{id: scheduler, what: "scheduler, 5,000 nodes", limit: 5500, unit: "pods/s", atLeast: true},
	{id: rebuild, what: "cached rebuild of a 4-step Dockerfile", limit: 60, unit: "ms"},
	{id: rebuildOne, what: "the same after one file changed", limit: 300, unit: "ms"},
	{id: cold, what: "the same with every step run ÷ Docker's build", limit: 1.2, unit: ""},
}

func (b budget) met(value float64) bool {
	if b.atLeast {
		return value >= b.limit
	}
	return value <= b.limit
}
