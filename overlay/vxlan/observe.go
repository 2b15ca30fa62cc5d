package vxlan

import (
	"errors"
	"fmt"
	"net/netip"

	"lighter.dev/lighter/overlay/netns"
)

// linkWith finds the link that has an address.
func linkWith(k netns.Kernel, ip netip.Addr) (netns.Link, error) {
	links, err := k.Links()
	if err != nil {
		return netns.Link{}, err
	}
	for _, l := range links {
		addrs, err := k.Addrs(l.Index)
		if err != nil {
			return netns.Link{}, err
		}
		for _, a := range addrs {
			if a.Addr() == ip {
				return l, nil
			}
		}
	}
	return netns.Link{}, fmt.Errorf("no link has the underlay address %s: %w", ip, netns.ErrNotFound)
}

// observe reads the device named in the wish and the sysctls that it names.
func observe(k netns.Kernel, wanted State) (State, error) {
	s := State{Sysctls: map[string]string{}}
	l, err := k.LinkByName(wanted.Device.Name)
	if errors.Is(err, netns.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.Exists, s.Device = true, l
	var errs [4]error
	s.Addrs, errs[0] = k.Addrs(l.Index)
	s.Routes, errs[1] = k.Routes(l.Index)
	s.Neighbours, errs[2] = k.Neighbours(l.Index)
	s.FDB, errs[3] = k.FDB(l.Index)
	if err := errors.Join(errs[:]...); err != nil {
		return s, err
	}
	for i := range s.Routes {
		s.Routes[i].Link = 0
	}
	for i := range s.Neighbours {
		s.Neighbours[i].Link = 0
	}
	for i := range s.FDB {
		s.FDB[i].Link = 0
	}
	for key, value := range wanted.Sysctls {
		s.Sysctls[key], err = k.Sysctl(key)
		if errors.Is(err, netns.ErrNotFound) {
			s.Sysctls[key] = value // a kernel without IPv6 has nothing to set
		} else if err != nil {
			return s, err
		}
	}
	return s, nil
}
