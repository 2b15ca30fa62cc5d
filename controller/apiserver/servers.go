package apiserver

import (
	"net/http"

	rbacv1 "k8s.io/api/rbac/v1"
)

// ServersPath is where further servers join.
const ServersPath = "/lighter/v1/servers"

const (
	joiningServers   = "system:bootstrappers:lighter-servers"
	serverJoinerRole = "lighter:server-joiner"
)

// mount serves a path that is no object's, and all below it. Whoever gets there
// has been authenticated and authorised like everybody.
func (s *Server) mount(path string, handler http.Handler) {
	mux := s.generic().Handler.NonGoRestfulMux
	mux.Handle(path, handler)
	mux.HandlePrefix(path+"/", handler)
}

// addServers lets hosts with a token for servers ask to become one. Listing
// servers and taking them out is for admins.
func (p *policy) addServers() {
	p.grant(serverJoinerRole, joiningServers, rbacv1.PolicyRule{NonResourceURLs: []string{ServersPath}, Verbs: []string{"post"}})
}
