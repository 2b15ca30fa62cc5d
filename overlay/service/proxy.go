package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/knftables"
)

// Config is what a Proxy works with.
type Config struct {
	NodeName string
	// PodCIDRs is the pod network of the whole cluster: connections from outside it
	// to a service are masqueraded.
	PodCIDRs []netip.Prefix
	// ServiceCIDRs get a route out of Device (the pods' bridge), so that the host itself
	// reaches services without a default route: routing comes before the rewriting of
	// its own packets. Optional.
	ServiceCIDRs []netip.Prefix
	Device       string
	Services     coreinformers.ServiceInformer
	Slices       discoveryinformers.EndpointSliceInformer
	// Families to serve; IPv4 if empty.
	Families []knftables.Family
	// MinInterval is the least time between two transactions; changes that come
	// faster are put together. 10 ms if zero.
	MinInterval time.Duration
	// ResyncInterval is after how long the whole table is written anew even if nothing
	// seems wrong. 10 minutes if zero.
	ResyncInterval time.Duration
	Log            *slog.Logger
}

// Proxy keeps the table in step with the API. One per host (network namespace).
type Proxy struct {
	cfg      Config
	families []*family
	changed  chan struct{} // capacity 1: "something changed"
	synced   chan struct{}
	handlers []cache.InformerSynced
}

// family is the table of one address family and what we know of the kernel's copy.
type family struct {
	name    knftables.Family
	nft     knftables.Interface
	applied *Table // nil: unknown, take over
	log     *slog.Logger
}

// New prepares a proxy. It fails if nft cannot be used here: not installed, no
// permission, kernel without nftables. It does not change anything yet.
func New(cfg Config) (*Proxy, error) {
	if cfg.MinInterval == 0 {
		cfg.MinInterval = 10 * time.Millisecond
	}
	if cfg.ResyncInterval == 0 {
		cfg.ResyncInterval = 10 * time.Minute
	}
	if len(cfg.Families) == 0 {
		cfg.Families = []knftables.Family{knftables.IPv4Family}
	}
	p := &Proxy{cfg: cfg, changed: make(chan struct{}, 1), synced: make(chan struct{})}
	for _, name := range cfg.Families {
		nft, err := knftables.New(name, TableName, knftables.NoObjectCommentEmulation)
		if err != nil {
			return nil, fmt.Errorf("services need nftables (package nftables, run as root): %w", err)
		}
		p.families = append(p.families, &family{name: name, nft: nft, log: cfg.Log})
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.wake() },
		UpdateFunc: func(any, any) { p.wake() },
		DeleteFunc: func(any) { p.wake() },
	}
	for _, informer := range []cache.SharedIndexInformer{cfg.Services.Informer(), cfg.Slices.Informer()} {
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			return nil, fmt.Errorf("watch services: %w", err)
		}
		p.handlers = append(p.handlers, registration.HasSynced)
	}
	return p, nil
}

// wake asks for a synchronisation; many calls before it happens make one.
func (p *Proxy) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Synced is closed when the table reflects the API for the first time.
func (p *Proxy) Synced() <-chan struct{} { return p.synced }

// Run keeps the table in step until ctx ends. The table stays when Run returns.
// Before the informers have synchronised, nothing is touched: what an earlier
// process left keeps working.
func (p *Proxy) Run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), p.handlers...) {
		return nil // ctx ended
	}
	watch, err := newWatch()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	reader := make(chan struct{})
	go func() {
		defer close(reader)
		watch.run(ctx)
	}()
	defer func() {
		cancel()
		if err := watch.close(); err != nil {
			p.cfg.Log.Debug("close netfilter sockets", "error", err)
		}
		<-reader
	}()
	p.loop(ctx, watch)
	return nil
}

// loop synchronises whenever there is a reason to, MinInterval apart at least.
func (p *Proxy) loop(ctx context.Context, watch *watch) {
	resync := time.NewTicker(p.cfg.ResyncInterval)
	defer resync.Stop()
	own := &ownGenerations{watch: watch}
	pause := time.NewTimer(0) // fires once at start; then after each synchronisation
	defer pause.Stop()
	for {
		// A failed synchronisation left the state unknown: try again by itself.
		retry := p.synchronise(ctx, own)
		pause.Reset(max(p.cfg.MinInterval, retry))
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		for waiting := retry == 0; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-p.changed:
				waiting = false
			case <-resync.C:
				p.forget()
				waiting = false
			case generation := <-watch.touched:
				if own.has(generation) {
					continue
				}
				p.cfg.Log.Warn("table was changed by somebody else, writing it anew", "table", TableName, "generation", generation)
				p.forget()
				waiting = false
			}
		}
	}
}

func (p *Proxy) forget() {
	for _, f := range p.families {
		f.applied = nil
	}
}

// synchronise brings all families up to date; it returns after how long to retry,
// or 0 if all went well.
func (p *Proxy) synchronise(ctx context.Context, own *ownGenerations) time.Duration {
	start := time.Now()
	if err := p.ensureRoutes(); err != nil {
		p.cfg.Log.Warn("this host itself may not reach services", "error", err)
	}
	services, err1 := p.cfg.Services.Lister().List(labels.Everything())
	slices, err2 := p.cfg.Slices.Lister().List(labels.Everything())
	if err := errors.Join(err1, err2); err != nil {
		p.cfg.Log.Error("read services from the cache", "error", err)
		return time.Second
	}
	var failed error
	for _, f := range p.families {
		wanted := Build(Input{Family: f.name, Node: p.cfg.NodeName, PodCIDRs: p.cfg.PodCIDRs, Services: services, Slices: slices})
		operations, err := own.during(func() (int, error) { return f.apply(ctx, wanted) })
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if operations > 0 {
			p.cfg.Log.Debug("services written", "family", f.name, "operations", operations, "took", time.Since(start))
		}
	}
	if failed != nil {
		if ctx.Err() == nil {
			p.cfg.Log.Error("write services, will retry", "error", failed)
		}
		return time.Second
	}
	select {
	case <-p.synced:
	default:
		p.cfg.Log.Info("services are in place", "services", len(services), "slices", len(slices), "took", time.Since(start))
		close(p.synced)
	}
	return 0
}

// apply makes the kernel hold wanted; it returns the number of nft operations.
func (f *family) apply(ctx context.Context, wanted *Table) (int, error) {
	old := f.applied
	f.applied = nil // unknown until the transaction succeeded
	tx := f.nft.NewTransaction()
	if old != nil {
		Diff(tx, old, wanted)
		if tx.NumOperations() == 0 {
			f.applied = wanted
			return 0, nil
		}
		if err := f.nft.Run(ctx, tx); err != nil {
			return 0, fmt.Errorf("change table %s %s: %w", f.name, TableName, err)
		}
	} else {
		var err error
		if tx, err = f.takeOver(ctx, wanted); err != nil {
			return 0, err
		}
		old = &Table{}
	}
	f.applied = wanted
	if _, err := cleanConntrack(old, wanted); err != nil {
		f.log.Warn("UDP clients may stay with endpoints that are gone", "error", err)
	}
	return tx.NumOperations(), nil
}

// takeOver writes the whole table in one transaction.
func (f *family) takeOver(ctx context.Context, wanted *Table) (*knftables.Transaction, error) {
	have, err := f.list(ctx)
	if err != nil {
		return nil, err
	}
	tx := f.nft.NewTransaction()
	TakeOver(tx, have, wanted)
	first := f.nft.Run(ctx, tx)
	if first == nil {
		return tx, nil
	}
	// Perhaps another version left a chain or set of another definition.
	tx = f.nft.NewTransaction()
	Replace(tx, wanted)
	if err := f.nft.Run(ctx, tx); err != nil {
		return nil, fmt.Errorf("write table %s %s: %w", f.name, TableName, errors.Join(first, err))
	}
	return tx, nil
}

func (f *family) list(ctx context.Context) (existing, error) {
	all, err := f.nft.ListAll(ctx)
	if err != nil && !knftables.IsNotFound(err) {
		return existing{}, fmt.Errorf("list table %s %s: %w", f.name, TableName, err)
	}
	return existing{chains: all["chain"], sets: all["set"], maps: all["map"]}, nil
}

// Cleanup removes the tables, and with them all services from this host's data plane.
func (p *Proxy) Cleanup(ctx context.Context) error {
	var errs error
	for _, f := range p.families {
		f.applied = nil
		tx := f.nft.NewTransaction()
		tx.Add(&knftables.Table{}) // so that the deletion cannot fail
		tx.Delete(&knftables.Table{})
		if err := f.nft.Run(ctx, tx); err != nil {
			errs = errors.Join(errs, fmt.Errorf("delete table %s %s: %w", f.name, TableName, err))
		}
	}
	return errs
}

// ownGenerations remembers which of the kernel's transactions were ours.
type ownGenerations struct {
	watch *watch
	spans []span
}

// span is the generations (before, last] that came about while we wrote once.
type span struct {
	before, last uint32
	ours         int // how many announcements in it may be ours
}

// during runs write, one transaction, and remembers when that was. If a generation
// cannot be read, the write's own echo counts as tampering: the price is one more
// full write.
func (o *ownGenerations) during(write func() (int, error)) (int, error) {
	before, err1 := o.watch.generation()
	n, err := write()
	last, err2 := o.watch.generation()
	if err == nil && n > 0 && err1 == nil && err2 == nil && last != before {
		o.spans = append(o.spans, span{before: before, last: last, ours: 1})
	}
	return n, err
}

// has tells whether id, which touched our table, was ours. Announcements come in
// order, so spans before id are done. A second touch while we wrote was not ours.
func (o *ownGenerations) has(id uint32) bool {
	for len(o.spans) > 0 && o.spans[0].last < id {
		o.spans = o.spans[1:]
	}
	if len(o.spans) == 0 || id <= o.spans[0].before || o.spans[0].ours == 0 {
		return false
	}
	o.spans[0].ours--
	return true
}
