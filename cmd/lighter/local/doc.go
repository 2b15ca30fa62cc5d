// Package local runs a whole Lighter cluster on one machine: what "lighter
// local" is made of.
//
// A host is not a container with an init system. It is
//
//   - a network, a mount and a UTS namespace, each pinned by a bind mount in
//     /run/lighter-local/<cluster>/, so that they outlive every process in them;
//   - an own /run (tmpfs), /var and /etc (overlay) inside that mount namespace,
//     the lasting parts kept under <dir>/hosts/<host>/;
//   - a cgroup subtree /lighter-local/<cluster>/<host> in every hierarchy;
//   - a veth into the cluster's switch: a bridge in a network namespace of its
//     own, with one more port that leads to the machine.
//
// The machine sees one interface and one route, 10.89.X.0/24. Nothing is
// forwarded beyond it.
//
// The kernel is the record of what runs; the file <dir>/cluster.json only says
// what is wanted. It is written before anything is made and removed after
// everything is gone, so that up and down may be killed anywhere and repeated.
//
// Where to read: plan.go (names, addresses; pure), state.go (the file, the
// lock), up.go and cluster.go (the verbs), boot.go and poweroff.go (one host),
// thread.go and pins.go (namespaces), spawn.go (processes in them), network.go
// (switch, links, cuts), cgroup.go, lighter.go (the daemons and when they are
// ready).
package local
