// Package ipam hands out the addresses of a node's pod CIDR.
//
// A lease is one file, named after the address and holding the pod's UID, so
// that any state a crash leaves behind is a valid one: a lease is there or it is
// not. Files are written aside and renamed. They are not fsynced: a lease is
// only worth something while the pod's network namespace exists, and that does
// not survive the power loss that fsync protects from. An empty or torn file
// after one is dropped on Open.
//
// Addresses rotate: the next one is searched behind the one given out last, so
// that a released address rests for as long as the CIDR has fresh ones and stale
// neighbour, conntrack and DNS entries do not lead to the wrong pod.
package ipam

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// ErrExhausted says that every address of the CIDR has a lease.
var ErrExhausted = errors.New("no free address")

// ErrNoLease says that the pod has no address.
var ErrNoLease = errors.New("no lease")

// Config of a Pool.
type Config struct {
	// Dir keeps the leases. It is made when missing and belongs to the pool alone.
	Dir string
	// CIDR is the node's IPv4 pod CIDR. Its first two addresses (VTEP and bridge)
	// and its last (broadcast) are never given out.
	CIDR netip.Prefix
	Log  *slog.Logger
}

// Lease is an address and its holder.
type Lease struct {
	PodUID string
	Addr   netip.Addr
}

// Pool leases addresses. It is safe for concurrent use; one process at a time
// may have a directory open.
type Pool struct {
	cfg         Config
	first, last netip.Addr

	mu     sync.Mutex
	byUID  map[string]netip.Addr
	byAddr map[netip.Addr]string
	cursor netip.Addr // given out last
}

// Open reads the leases of dir. Leases outside the CIDR (the node got another
// one) are dropped: their pods cannot be reached there.
func Open(cfg Config) (*Pool, error) {
	if !cfg.CIDR.Addr().Is4() || cfg.CIDR.Bits() > 30 {
		return nil, fmt.Errorf("ipam: pod CIDR %s: want an IPv4 network of at least 4 addresses", cfg.CIDR)
	}
	cfg.CIDR = cfg.CIDR.Masked()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("ipam: %w", err)
	}
	p := &Pool{
		cfg: cfg, first: cfg.CIDR.Addr().Next().Next(), last: broadcast(cfg.CIDR).Prev(),
		byUID: map[string]netip.Addr{}, byAddr: map[netip.Addr]string{},
	}
	if err := p.load(); err != nil {
		return nil, err
	}
	return p, nil
}

func broadcast(n netip.Prefix) netip.Addr {
	b := n.Addr().As4()
	for bit := n.Bits(); bit < 32; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(b)
}

// Names in the folder that are no addresses: the rotation, which outlives a
// restart, and the file being written.
const (
	cursorFile = "last"
	tempFile   = "new"
)

func (p *Pool) load() error {
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return fmt.Errorf("ipam: read leases: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(p.cfg.Dir, e.Name())
		content, err := os.ReadFile(path) //nolint:gosec // our own folder
		if err != nil {
			return fmt.Errorf("ipam: read lease: %w", err)
		}
		uid := string(bytes.TrimSpace(content))
		if e.Name() == cursorFile {
			p.cursor, _ = netip.ParseAddr(uid) // what does not parse starts the rotation anew
			continue
		}
		addr, err := netip.ParseAddr(e.Name())
		_, twice := p.byUID[uid]
		if err != nil || uid == "" || twice || !p.usable(addr) {
			p.cfg.Log.Warn("drop a lease that cannot be kept", "file", e.Name(), "pod", uid, "cidr", p.cfg.CIDR)
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("ipam: drop lease: %w", err)
			}
			continue
		}
		p.byUID[uid], p.byAddr[addr] = addr, uid
	}
	if !p.usable(p.cursor) {
		p.cursor = p.last
	}
	return nil
}

func (p *Pool) usable(a netip.Addr) bool {
	return a.IsValid() && a.Compare(p.first) >= 0 && a.Compare(p.last) <= 0
}

// Allocate gives the pod its address: the one it has, or a free one.
func (p *Pool) Allocate(podUID string) (netip.Addr, error) {
	if podUID == "" {
		return netip.Addr{}, errors.New("ipam: allocate: empty pod UID")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.byUID[podUID]; ok {
		return a, nil
	}
	a, err := p.free()
	if err != nil {
		return netip.Addr{}, err
	}
	// The cursor first: a crash in between skips an address, it never repeats one.
	if err := p.write(cursorFile, a.String()); err != nil {
		return netip.Addr{}, err
	}
	if err := p.write(a.String(), podUID); err != nil {
		return netip.Addr{}, err
	}
	p.cursor, p.byUID[podUID], p.byAddr[a] = a, a, podUID
	return a, nil
}

// free finds the next address without a lease behind the cursor.
func (p *Pool) free() (netip.Addr, error) {
	a := p.cursor
	for {
		if a = a.Next(); !p.usable(a) {
			a = p.first
		}
		if p.byAddr[a] == "" {
			return a, nil
		}
		if a == p.cursor {
			return netip.Addr{}, fmt.Errorf("ipam: all %d addresses of pod CIDR %s are in use: %w",
				len(p.byAddr), p.cfg.CIDR, ErrExhausted)
		}
	}
}

func (p *Pool) write(name, content string) error {
	temp := filepath.Join(p.cfg.Dir, tempFile)
	if err := os.WriteFile(temp, []byte(content+"\n"), 0o600); err != nil {
		return fmt.Errorf("ipam: write lease: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(p.cfg.Dir, name)); err != nil {
		return fmt.Errorf("ipam: write lease: %w", err)
	}
	return nil
}

// Release gives the pod's address back. A pod without a lease is no error.
func (p *Pool) Release(podUID string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.release(podUID)
}

func (p *Pool) release(podUID string) error {
	a, ok := p.byUID[podUID]
	if !ok {
		return nil
	}
	err := os.Remove(filepath.Join(p.cfg.Dir, a.String()))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("ipam: release %s: %w", a, err)
	}
	delete(p.byUID, podUID)
	delete(p.byAddr, a)
	return nil
}

// Lookup is the pod's address, or ErrNoLease.
func (p *Pool) Lookup(podUID string) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.byUID[podUID]
	if !ok {
		return netip.Addr{}, fmt.Errorf("ipam: pod %s: %w", podUID, ErrNoLease)
	}
	return a, nil
}

// Leases lists all leases by address.
func (p *Pool) Leases() []Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Lease, 0, len(p.byUID))
	for uid, a := range p.byUID {
		out = append(out, Lease{PodUID: uid, Addr: a})
	}
	slices.SortFunc(out, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return out
}

// Keep releases the leases of all pods but these and returns what it released.
func (p *Pool) Keep(podUIDs []string) ([]Lease, error) {
	keep := make(map[string]bool, len(podUIDs))
	for _, uid := range podUIDs {
		keep[uid] = true
	}
	var released []Lease
	var errs []error
	for _, l := range p.Leases() {
		if keep[l.PodUID] {
			continue
		}
		if err := p.Release(l.PodUID); err != nil {
			errs = append(errs, err)
			continue
		}
		released = append(released, l)
	}
	return released, errors.Join(errs...)
}

// Gateway is the bridge's address in a pod CIDR: its first host address.
func Gateway(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr().Next() }

// VTEP is the address of a node's VXLAN device: the network address of its pod CIDR.
func VTEP(cidr netip.Prefix) netip.Addr { return cidr.Masked().Addr() }
