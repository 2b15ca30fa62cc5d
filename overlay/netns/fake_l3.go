package netns

import (
	"fmt"
	"net/netip"
	"slices"
)

type prefix = netip.Prefix

// connect adds the route that follows from an address.
func (l *fakeLink) connect(p prefix) {
	if p.IsSingleIP() || !p.Addr().Is4() {
		return
	}
	l.routes = append(l.routes, Route{Dst: p.Masked(), Link: l.Index, Src: p.Addr(), Protocol: protocolKernel})
}

func get[T any](f *Fake, method string, link int, read func(*fakeLink) []T) ([]T, error) {
	var out []T
	unlock, err := f.begin(method)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if l := f.links[link]; l != nil { // a dump of a missing link is empty, not an error
		out = slices.Clone(read(l))
	}
	return out, nil
}

// Addrs lists the addresses of a link.
func (f *Fake) Addrs(link int) ([]netip.Prefix, error) {
	return get(f, "Addrs", link, func(l *fakeLink) []prefix { return l.addrs })
}

// AddAddr adds an address.
func (f *Fake) AddAddr(link int, p netip.Prefix) error {
	return f.change("AddAddr", link, func(l *fakeLink) error {
		if !p.IsValid() {
			return fmt.Errorf("address %s: %w", p, ErrInvalid)
		}
		if slices.Contains(l.addrs, p) {
			return fmt.Errorf("address %s: %w", p, ErrExists)
		}
		l.addrs = append(l.addrs, p)
		if l.Up {
			l.connect(p)
		}
		return nil
	})
}

// DelAddr removes an address, its connected route and routes that prefer it.
func (f *Fake) DelAddr(link int, p netip.Prefix) error {
	return f.change("DelAddr", link, func(l *fakeLink) error {
		i := slices.Index(l.addrs, p)
		if i < 0 {
			return fmt.Errorf("address %s: %w", p, ErrNotFound)
		}
		l.addrs = slices.Delete(l.addrs, i, i+1)
		l.routes = slices.DeleteFunc(l.routes, func(r Route) bool { return r.Src == p.Addr() })
		return nil
	})
}

// Routes lists the routes over a link.
func (f *Fake) Routes(link int) ([]Route, error) {
	return get(f, "Routes", link, func(l *fakeLink) []Route { return l.routes })
}

func (f *Fake) isLocal(a netip.Addr) bool {
	for _, l := range f.links {
		for _, p := range l.addrs {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}

// SetRoute adds or replaces the route to r.Dst, wherever that one leads.
func (f *Fake) SetRoute(r Route) error {
	return f.change("SetRoute", r.Link, func(l *fakeLink) error {
		switch {
		case !r.Dst.IsValid() || r.Dst != r.Dst.Masked():
			return fmt.Errorf("destination %s has host bits: %w", r.Dst, ErrInvalid)
		case !l.Up:
			return fmt.Errorf("route %s: link is down: %w", r, ErrUnreachable)
		case r.Src.IsValid() && !f.isLocal(r.Src):
			return fmt.Errorf("route %s: source is no local address: %w", r, ErrInvalid)
		case r.Gateway.IsValid() && !r.Onlink && !l.connected(r.Gateway):
			return fmt.Errorf("route %s: gateway: %w", r, ErrUnreachable)
		}
		for _, o := range f.links {
			o.routes = slices.DeleteFunc(o.routes, func(x Route) bool { return x.Dst == r.Dst })
		}
		l.routes = append(l.routes, r)
		return nil
	})
}

// connected says whether a gateway is on a network without another gateway.
func (l *fakeLink) connected(gw netip.Addr) bool {
	return slices.ContainsFunc(l.routes, func(r Route) bool { return !r.Gateway.IsValid() && r.Dst.Contains(gw) })
}

// DelRoute removes the route to r.Dst over r.Link.
func (f *Fake) DelRoute(r Route) error {
	unlock, err := f.begin("DelRoute")
	if err != nil {
		return err
	}
	defer unlock()
	if l := f.links[r.Link]; l != nil {
		same := func(x Route) bool { return x.Dst == r.Dst && (!r.Gateway.IsValid() || x.Gateway == r.Gateway) }
		if i := slices.IndexFunc(l.routes, same); i >= 0 {
			l.routes = slices.Delete(l.routes, i, i+1)
			f.changed()
			return nil
		}
	}
	return fmt.Errorf("delete route %s on link %d: %w", r, r.Link, ErrNotFound)
}

// Neighbours lists the permanent entries of a link.
func (f *Fake) Neighbours(link int) ([]Neighbour, error) {
	return get(f, "Neighbours", link, func(l *fakeLink) []Neighbour { return l.neighbours })
}

// SetNeighbour adds or replaces the entry of n.IP.
func (f *Fake) SetNeighbour(n Neighbour) error {
	return f.change("SetNeighbour", n.Link, func(l *fakeLink) error {
		if !l.Up {
			return fmt.Errorf("neighbour %s: link is down: %w", n.IP, ErrUnreachable)
		}
		l.neighbours = slices.DeleteFunc(l.neighbours, func(x Neighbour) bool { return x.IP == n.IP })
		l.neighbours = append(l.neighbours, n)
		return nil
	})
}

// DelNeighbour removes the entry of n.IP.
func (f *Fake) DelNeighbour(n Neighbour) error {
	return f.change("DelNeighbour", n.Link, func(l *fakeLink) error {
		i := slices.IndexFunc(l.neighbours, func(x Neighbour) bool { return x.IP == n.IP })
		if i < 0 {
			return fmt.Errorf("neighbour %s: %w", n.IP, ErrNotFound)
		}
		l.neighbours = slices.Delete(l.neighbours, i, i+1)
		return nil
	})
}

// FDB lists the entries of a VXLAN device or bridge port.
func (f *Fake) FDB(link int) ([]FDBEntry, error) {
	return get(f, "FDB", link, func(l *fakeLink) []FDBEntry { return l.fdb })
}

// SetFDB adds or replaces the entry of e.MAC.
func (f *Fake) SetFDB(e FDBEntry) error {
	return f.change("SetFDB", e.Link, func(l *fakeLink) error {
		if e.Remote.IsValid() && l.Kind != KindVXLAN || !e.Remote.IsValid() && l.Master == 0 {
			return fmt.Errorf("forwarding entry %s to %s: %w", e.MAC, e.Remote, ErrInvalid)
		}
		l.fdb = slices.DeleteFunc(l.fdb, func(x FDBEntry) bool { return x.MAC == e.MAC })
		l.fdb = append(l.fdb, e)
		return nil
	})
}

// DelFDB removes the entry of e.MAC.
func (f *Fake) DelFDB(e FDBEntry) error {
	return f.change("DelFDB", e.Link, func(l *fakeLink) error {
		i := slices.IndexFunc(l.fdb, func(x FDBEntry) bool { return x.MAC == e.MAC })
		if i < 0 {
			return fmt.Errorf("forwarding entry %s: %w", e.MAC, ErrNotFound)
		}
		l.fdb = slices.Delete(l.fdb, i, i+1)
		return nil
	})
}
