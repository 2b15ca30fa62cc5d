package netns

import (
	"context"
	"errors"
	"net/netip"
)

// Errors that callers decide on. Implementations wrap them with what was tried.
var (
	// ErrNotFound: the link, address, route, entry, namespace or sysctl is missing.
	ErrNotFound = errors.New("not found")
	// ErrExists: there is one of that name or key already.
	ErrExists = errors.New("already exists")
	// ErrInvalid: the kernel refuses the request whatever the state is.
	ErrInvalid = errors.New("invalid")
	// ErrUnreachable: the link is down, or a gateway is on no connected network.
	ErrUnreachable = errors.New("unreachable")
)

// Kernel is one network namespace. All methods are safe for concurrent use.
type Kernel interface {
	Links
	Addresses
	Routes
	Neighbours
	Sysctls
	// Watch signals after links, addresses, routes or neighbours changed (also by
	// our own doing). Signals coalesce; a receiver looks at the whole state. The
	// channel is closed when ctx ends.
	Watch(ctx context.Context) (<-chan struct{}, error)
	// Close gives up the handle. The namespace stays.
	Close() error
}

// Links are the devices of the namespace.
type Links interface {
	Links() ([]Link, error)
	LinkByName(name string) (Link, error)
	// AddLink makes a bridge or VXLAN device, down unless l.Up, and returns it.
	AddLink(l Link) (Link, error)
	// AddVeth makes a pair, this end up, the peer down in its namespace.
	AddVeth(v Veth) (Link, error)
	// AddMacvlan makes a macvlan (bridge mode), down, in the peer's namespace.
	AddMacvlan(m Macvlan) error
	SetUp(index int, up bool) error
	SetMTU(index, mtu int) error
	SetMAC(index int, mac MAC) error
	// SetMaster makes the link a port of a bridge, or of none (0).
	SetMaster(index, master int) error
	// SetBridgePort is for links that are ports of a bridge.
	SetBridgePort(index int, p BridgePort) error
	// DelLink removes the link and all that hangs on it (the peer of a veth, addresses, routes, entries).
	DelLink(name string) error
}

// Addresses are the addresses of a link. IPv6 link-local ones are not listed.
type Addresses interface {
	Addrs(link int) ([]netip.Prefix, error)
	AddAddr(link int, p netip.Prefix) error
	DelAddr(link int, p netip.Prefix) error
}

// Routes are the entries of the main table.
type Routes interface {
	// Routes lists the IPv4 unicast routes over a link.
	Routes(link int) ([]Route, error)
	// SetRoute adds a route or replaces the one to the same destination.
	SetRoute(r Route) error
	DelRoute(r Route) error
}

// Neighbours are permanent neighbour and forwarding entries.
type Neighbours interface {
	Neighbours(link int) ([]Neighbour, error)
	SetNeighbour(n Neighbour) error
	DelNeighbour(n Neighbour) error
	// FDB lists the permanent entries of a VXLAN device, or those pinned to a bridge port.
	FDB(link int) ([]FDBEntry, error)
	SetFDB(e FDBEntry) error
	DelFDB(e FDBEntry) error
}

// Sysctls are the values below /proc/sys/net. Keys are slash-separated
// ("net/ipv4/conf/lighter.vx/rp_filter"), since link names may contain dots.
type Sysctls interface {
	Sysctl(key string) (string, error)
	SetSysctl(key, value string) error
}
