package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"lighter.dev/lighter/controller/reconcile"
)

const (
	// leaderLease, in kube-system, names the server whose reconcilers work.
	leaderLease = "lighter-leader"
	// leaseLife is how long the others wait after its last sign of life. The leader
	// stops before that, when it could not give one for leaseDeadline.
	leaseLife     = 4 * time.Second
	leaseDeadline = 3 * time.Second
	leaseRetry    = time.Second
	// leaseTimeout bounds one request: a server without a quorum does not answer.
	leaseTimeout = leaseDeadline / 2
)

// term is the reconcilers of one period of leadership. They follow the API from
// the moment they are made, so that whoever is elected knows what has happened;
// but they decide and write only while they run.
type term struct {
	scope   *reconcile.Scope
	runners []runner
	end     context.CancelFunc
}

// newTerm makes reconcilers that have not begun.
func (p *controlPlane) newTerm(ctx context.Context) (*term, error) {
	ctx, end := context.WithCancel(ctx)
	scope := reconcile.NewScope(p.api.Informers(), p.own)
	w := &reconcilers{plane: p, ctx: ctx, client: p.api.Client(), informers: scope, own: scope.Lighter}
	w.images()
	w.workloads()
	w.network()
	w.lifecycle()
	w.upstream()
	t := &term{scope: scope, runners: w.runners, end: end}
	if err := errors.Join(w.errs...); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// run works until ctx ends.
func (t *term) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range t.runners {
		group.Go(func() error { return r.Run(ctx) })
	}
	return group.Wait()
}

// close lets go of the informers.
func (t *term) close() {
	t.scope.Close()
	t.end()
}

// lead runs one term after another until ctx ends, each when this server has
// become the leader.
func (p *controlPlane) lead(ctx context.Context) error {
	for {
		err := p.oneTerm(ctx, p.next.run)
		p.next.close()
		if ctx.Err() != nil || err != nil {
			return err
		}
		if p.next, err = p.newTerm(ctx); err != nil {
			return err
		}
		// Those that no earlier term has started.
		p.api.Informers().Start(ctx.Done())
		p.own.Start(ctx.Done())
	}
}

// oneTerm waits for its turn, works, and returns when that is over. A server that
// is alone has nobody to agree with.
func (p *controlPlane) oneTerm(ctx context.Context, work func(context.Context) error) error {
	select {
	case <-p.store.Others():
		return p.elected(ctx, work)
	default:
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-p.store.Others():
			stop()
		case <-ctx.Done():
		}
	}()
	return work(ctx)
}

// elected campaigns and works for as long as this server leads.
func (p *controlPlane) elected(ctx context.Context, work func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	config := p.api.LoopbackConfig()
	config.Timeout = leaseTimeout
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	// Buffered: a term that is over at once is not taken up.
	begun, over := make(chan context.Context, 1), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Name: leaderLease,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Name: leaderLease, Namespace: metav1.NamespaceSystem},
			Client:    client.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: p.settings.name},
		},
		LeaseDuration: leaseLife, RenewDeadline: leaseDeadline, RetryPeriod: leaseRetry,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(term context.Context) { begun <- term },
			OnStoppedLeading: func() { close(over) },
		},
	})
	if err != nil {
		return err
	}
	go elector.Run(ctx)
	select {
	case term := <-begun:
		p.log.Info("this server leads: its reconcilers work")
		err = work(term)
		stop()
		<-over
		p.log.Info("this server does not lead any more: its reconcilers have stopped")
	case <-over:
	}
	return err
}

// leader is the name of the server that leads, "" if nobody knows.
func (p *controlPlane) leader(ctx context.Context) string {
	select {
	case <-p.store.Others():
	default:
		return p.settings.name
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	lease, err := p.api.Client().CoordinationV1().Leases(metav1.NamespaceSystem).Get(ctx, leaderLease, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity == nil || lease.Spec.RenewTime == nil || time.Since(lease.Spec.RenewTime.Time) > leaseLife {
		return ""
	}
	return *lease.Spec.HolderIdentity
}
