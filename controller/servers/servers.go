package servers

import (
	"lighter.dev/lighter/controller/pki"
	"lighter.dev/lighter/controller/store"
)

// Path is where the API server has the Handler. A server's name may follow.
const Path = "/lighter/v1/servers"

// Ranges are settings that all servers of a cluster have to share.
type Ranges struct {
	ClusterCIDR string `json:"clusterCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	Domain      string `json:"domain"`
}

// Request is POSTed to Path by a host that wants to be a server.
type Request struct {
	store.Server
	Ranges Ranges `json:"ranges"`
}

// Reply is the answer: all that makes a server. It is secret.
type Reply struct {
	Identity pki.Shared   `json:"identity"`
	Store    store.Shared `json:"store"`
	// Members are those of etcd, the new one included; none with an external etcd.
	Members []store.Member `json:"members,omitempty"`
}

// Info is one server as GET Path lists it.
type Info struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	// Role in etcd: voter, learner, joining, or external if etcd is the user's.
	Role string `json:"role"`
	// Leader: its reconcilers work, those of the others wait.
	Leader  bool `json:"leader"`
	Healthy bool `json:"healthy"`
	// Problem is why it is not healthy.
	Problem string `json:"problem,omitempty"`
}

// List is what GET Path answers.
type List struct {
	Servers []Info `json:"servers"`
	// Quorum says who is missing if too few servers are there to decide; "" if all are.
	Quorum string `json:"quorum,omitempty"`
}

// The roles of a server in etcd.
const (
	RoleVoter    = "voter"
	RoleLearner  = "learner"
	RoleJoining  = "joining"
	RoleExternal = "external"
)
