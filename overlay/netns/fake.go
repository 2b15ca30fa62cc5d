package netns

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// World is an in-memory kernel: a set of namespaces that veth pairs can join.
type World struct {
	mu         sync.Mutex
	namespaces map[string]*Fake
	nextIndex  int
}

// NewWorld has no namespaces.
func NewWorld() *World { return &World{namespaces: map[string]*Fake{}} }

// Fake is one namespace of a World. It keeps state as Linux does and refuses
// what Linux refuses; it moves no packets.
type Fake struct {
	w        *World
	path     string
	links    map[int]*fakeLink
	sysctls  map[string]string
	watchers map[chan struct{}]bool
	failures map[string]error
}

var _ Kernel = (*Fake)(nil)

type fakeLink struct {
	Link
	port       BridgePort
	peerNS     *Fake
	peer       int
	addrs      []prefix
	routes     []Route
	neighbours []Neighbour
	fdb        []FDBEntry
}

// NS returns the namespace of that path and makes it, with its loopback, when missing.
func (w *World) NS(path string) *Fake {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.namespaces[path]; f != nil {
		return f
	}
	f := &Fake{
		w: w, path: path, links: map[int]*fakeLink{}, watchers: map[chan struct{}]bool{},
		failures: map[string]error{}, sysctls: map[string]string{"net/ipv4/ip_forward": "0"},
	}
	f.devconf("all", "0")
	f.devconf("default", "0")
	// Loopback has index 1 in every namespace, as in Linux.
	f.links[1] = &fakeLink{Link: Link{Index: 1, Name: "lo", Kind: "device", MTU: 65536}}
	f.devconf("lo", "0")
	w.namespaces[path] = f
	return f
}

// Open is netns.Open for this world: a namespace never made, or removed, is ErrNotFound.
func (w *World) Open(path string) (Kernel, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.namespaces[path]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("open namespace %s: %w", path, ErrNotFound)
}

// Remove ends a namespace: its links go, and with them the other ends of its pairs.
func (w *World) Remove(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.namespaces[path]
	if f == nil {
		return
	}
	for _, l := range f.links {
		f.remove(l)
	}
	delete(w.namespaces, path)
}

// FailNext makes the next call of that method fail, to test clean-up.
func (f *Fake) FailNext(method string, err error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.failures[method] = err
}

// begin locks the world and tells whether the call shall fail.
func (f *Fake) begin(method string) (unlock func(), err error) {
	f.w.mu.Lock()
	if err := f.failures[method]; err != nil {
		delete(f.failures, method)
		f.w.mu.Unlock()
		return nil, err
	}
	return f.w.mu.Unlock, nil
}

// Close gives up the handle; a Fake has none.
func (f *Fake) Close() error { return nil }

// String names the namespace.
func (f *Fake) String() string { return f.path }

// Watch signals after every change.
func (f *Fake) Watch(ctx context.Context) (<-chan struct{}, error) {
	unlock, err := f.begin("Watch")
	if err != nil {
		return nil, err
	}
	defer unlock()
	ch := make(chan struct{}, 1)
	f.watchers[ch] = true
	context.AfterFunc(ctx, func() {
		f.w.mu.Lock()
		defer f.w.mu.Unlock()
		delete(f.watchers, ch)
		close(ch)
	})
	return ch, nil
}

func (f *Fake) changed() {
	for ch := range f.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// devconf makes the per-link values that the overlay uses.
func (f *Fake) devconf(name, value string) {
	for _, key := range []string{"rp_filter", "route_localnet", "send_redirects", "forwarding", "arp_ignore"} {
		f.sysctls["net/ipv4/conf/"+name+"/"+key] = value
	}
	f.sysctls["net/ipv6/conf/"+name+"/addr_gen_mode"] = value
	f.sysctls["net/ipv6/conf/"+name+"/disable_ipv6"] = value
	f.sysctls["net/ipv6/conf/"+name+"/accept_dad"] = value
}

func (f *Fake) dropDevconf(name string) {
	for key := range f.sysctls {
		if strings.HasPrefix(key, "net/ipv4/conf/"+name+"/") || strings.HasPrefix(key, "net/ipv6/conf/"+name+"/") {
			delete(f.sysctls, key)
		}
	}
}

// Sysctl reads a value.
func (f *Fake) Sysctl(key string) (string, error) {
	unlock, err := f.begin("Sysctl")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := sysctlPath(key); err != nil {
		return "", err
	}
	v, ok := f.sysctls[key]
	if !ok {
		return "", fmt.Errorf("read sysctl %s: %w", key, ErrNotFound)
	}
	return v, nil
}

// SetSysctl writes a value that exists.
func (f *Fake) SetSysctl(key, value string) error {
	unlock, err := f.begin("SetSysctl")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := sysctlPath(key); err != nil {
		return err
	}
	if _, ok := f.sysctls[key]; !ok {
		return fmt.Errorf("set sysctl %s=%s: %w", key, value, ErrNotFound)
	}
	f.sysctls[key] = value
	return nil
}
