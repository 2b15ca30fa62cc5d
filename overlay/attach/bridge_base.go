package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lighter.dev/lighter/overlay/netns"
)

// ensure makes the bridge, its sysctls, the ports of all recorded pods and the
// nftables table what they should be.
func (b *bridge) ensure(ctx context.Context) error {
	b.base.Lock()
	defer b.base.Unlock()
	br, err := b.ensureBridge()
	if err != nil {
		return fmt.Errorf("attach: set up bridge %s: %w", b.cfg.Bridge, err)
	}
	if err := b.ensureSysctls(); err != nil {
		return fmt.Errorf("attach: set up bridge %s: %w", b.cfg.Bridge, err)
	}
	changed, err := b.ensureBridgeNetfilter()
	if err != nil {
		return fmt.Errorf("attach: set up bridge %s: %w", b.cfg.Bridge, err)
	}
	if err := b.ensurePorts(br, changed); err != nil {
		return fmt.Errorf("attach: mend the pods' links: %w", err)
	}
	if err := b.rules.sync(ctx, b.records.list(), true); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

func (b *bridge) ensureBridge() (netns.Link, error) {
	k := b.cfg.Kernel
	mac := netns.MACFromIPv4(b.gateway)
	br, err := k.LinkByName(b.cfg.Bridge)
	if errors.Is(err, netns.ErrNotFound) {
		br, err = k.AddLink(netns.Link{Name: b.cfg.Bridge, Kind: netns.KindBridge, MAC: mac, MTU: b.cfg.MTU})
		b.cfg.Log.Info("bridge made", "bridge", b.cfg.Bridge, "address", b.gateway, "mtu", b.cfg.MTU)
	}
	if err != nil {
		return br, err
	}
	if br.Kind != netns.KindBridge {
		return br, fmt.Errorf("there is a link of that name that is a %s: %w", br.Kind, netns.ErrExists)
	}
	if br.MAC != mac {
		err = errors.Join(err, k.SetMAC(br.Index, mac))
		br.MAC = mac
	}
	if br.MTU != b.cfg.MTU {
		err = errors.Join(err, k.SetMTU(br.Index, b.cfg.MTU))
	}
	// Before it comes up: nobody speaks IPv6 here, so no link-local address either.
	err = errors.Join(err, ignoreMissing(k.SetSysctl("net/ipv6/conf/"+b.cfg.Bridge+"/addr_gen_mode", "1")))
	if !br.Up {
		err = errors.Join(err, k.SetUp(br.Index, true))
	}
	return br, errors.Join(err, b.ensureBridgeAddr(br.Index))
}

// ensureBridgeAddr leaves the gateway as the only address: the node may have
// had another pod CIDR before.
func (b *bridge) ensureBridgeAddr(link int) error {
	want := netip.PrefixFrom(b.gateway, b.cfg.PodCIDR.Bits())
	have, err := b.cfg.Kernel.Addrs(link)
	if err != nil {
		return err
	}
	missing := true
	for _, p := range have {
		if p == want {
			missing = false
		} else if p.Addr().Is4() {
			err = errors.Join(err, b.cfg.Kernel.DelAddr(link, p))
		}
	}
	if missing {
		err = errors.Join(err, b.cfg.Kernel.AddAddr(link, want))
	}
	return err
}

func (b *bridge) ensureSysctls() error {
	conf := "net/ipv4/conf/" + b.cfg.Bridge + "/"
	for _, s := range []struct{ key, value string }{
		{"net/ipv4/ip_forward", "1"},
		// Strict (RFC 3704): a pod cannot send with another network's address.
		{conf + "rp_filter", "1"},
		// For published ports by way of loopback; see the rule in chainRaw.
		{conf + "route_localnet", "1"},
		// Pods of one host talk through the bridge's address on purpose. The
		// kernel ORs this one with "all", which other links do not depend on.
		{conf + "send_redirects", "0"},
		{"net/ipv4/conf/all/send_redirects", "0"},
	} {
		have, err := b.cfg.Kernel.Sysctl(s.key)
		if err == nil && have != s.value {
			err = b.cfg.Kernel.SetSysctl(s.key, s.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bridgeNetfilterKey is missing where the module br_netfilter is not loaded.
const bridgeNetfilterKey = "net/bridge/bridge-nf-call-iptables"

// bridgeNetfilter says whether bridged packets pass the IP hooks. Then a packet
// that was translated to another pod of this host is not routed but sent straight
// to that pod's port, so that ports must not be isolated, and must send back
// where a packet came from.
func (b *bridge) bridgeNetfilter() bool { return b.netfilter.Load() }

// ensureBridgeNetfilter switches it off where ours is the only bridge: it costs
// each packet a second pass through the hooks. Other bridges (Docker's) may
// count on it; then it stays and the ports are set accordingly.
func (b *bridge) ensureBridgeNetfilter() (changed bool, err error) {
	value, err := b.cfg.Kernel.Sysctl(bridgeNetfilterKey)
	on := err == nil && value != "0"
	if err = ignoreMissing(err); err != nil {
		return false, err
	}
	if on {
		links, err := b.cfg.Kernel.Links()
		if err != nil {
			return false, err
		}
		foreign := slices.ContainsFunc(links, func(l netns.Link) bool {
			return l.Kind == netns.KindBridge && l.Name != b.cfg.Bridge
		})
		if !foreign {
			if err := b.cfg.Kernel.SetSysctl(bridgeNetfilterKey, "0"); err != nil {
				return false, err
			}
			on = false
		}
	}
	return b.netfilter.Swap(on) != on, nil
}

// ensurePorts puts links back on the bridge that lost it, or sets all of them
// again. A missing link is the pod's to repair: Status tells its owner.
func (b *bridge) ensurePorts(br netns.Link, all bool) error {
	var errs []error
	for _, rec := range b.records.list() {
		l, err := b.cfg.Kernel.LinkByName(vethName(rec.Sandbox.PodUID))
		if err == nil && (all || l.Master != br.Index) {
			err = b.ensurePort(l, br, rec.IP)
		}
		errs = append(errs, ignoreMissing(err))
	}
	return errors.Join(errs...)
}

// Times of the loop that mends; quiet bounds how often a storm of changes causes a look.
const (
	quiet  = 250 * time.Millisecond
	retry  = time.Second
	resync = 30 * time.Second
)

// run mends until ctx ends.
func (b *bridge) run(ctx context.Context) error {
	changes, err := b.cfg.Kernel.Watch(ctx)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	timer := time.NewTimer(resync)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			pause := resync
			if err := b.ensure(ctx); err != nil && ctx.Err() == nil {
				b.cfg.Log.Error("bridge is not as it should be", "error", err)
				pause = retry
			}
			timer.Reset(pause)
		case _, open := <-changes:
			if !open {
				changes = nil
				continue
			}
			if br, err := b.cfg.Kernel.LinkByName(b.cfg.Bridge); err != nil || !br.Up {
				timer.Reset(0)
			}
		}
	}
}

func (b *bridge) teardown(ctx context.Context) error {
	b.base.Lock()
	defer b.base.Unlock()
	err := errors.Join(ignoreMissing(b.cfg.Kernel.DelLink(b.cfg.Bridge)), b.rules.remove(ctx))
	if err != nil {
		return fmt.Errorf("attach: tear down: %w", err)
	}
	return nil
}

// keyedMutex is a lock per key, without a trace of keys not in use.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int
}

func (m *keyedMutex) lock(key string) (unlock func()) {
	m.mu.Lock()
	if m.held == nil {
		m.held = map[string]*keyLock{}
	}
	l := m.held[key]
	if l == nil {
		l = &keyLock{}
		m.held[key] = l
	}
	l.users++
	m.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		m.mu.Lock()
		if l.users--; l.users == 0 {
			delete(m.held, key)
		}
		m.mu.Unlock()
	}
}
