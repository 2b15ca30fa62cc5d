package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"lighter.dev/lighter/api/agentapi"
)

const (
	// pushRounds is how often a blob is sent before the push fails; the pause
	// after the first round is fetchBackoff, and doubles.
	pushRounds = 4
	// parallelPush is how many blobs of one image are sent at a time.
	parallelPush = 3
)

// Push sends an image that a namespace may use to the registry that the name to is
// in, under that name; to may be "", then the image keeps its own. Layers that the
// registry has, in whatever repository they came from, are not sent again. Of an
// image for several platforms it sends what is here: all of it, else this host's
// platform alone. report, if not nil, is called by several goroutines.
func (s *Store) Push(ctx context.Context, namespace, ref, to string, auth []agentapi.Credential, report func(agentapi.Progress)) (agentapi.Result, error) {
	ctx = s.in(ctx)
	if report == nil {
		report = func(agentapi.Progress) {}
	}
	name, rec, err := s.lookup(ctx, namespace, ref)
	if err != nil {
		return agentapi.Result{}, err
	}
	if to != "" {
		name = to
	}
	full, pin, err := Normalize(name)
	if err == nil && (pin != "" || !tagged(full)) {
		err = fmt.Errorf("%w: %q: a push needs a name with a tag, and cannot choose the digest", ErrInvalidName, name)
	}
	if err != nil {
		return agentapi.Result{}, err
	}
	ctx, release, err := s.withLease(ctx, leasePull)
	if err != nil {
		return agentapi.Result{}, err
	}
	defer release()
	if err := s.hold(ctx, rec.Target); err != nil {
		return agentapi.Result{}, err
	}
	cargo, err := s.load(ctx, rec.Target)
	if err != nil {
		return agentapi.Result{}, fmt.Errorf("push %s: %w", full, err)
	}
	if err := s.pushAs(ctx, full, cargo, fromAPI(auth), report); err != nil {
		if ctx.Err() == nil && !denied(err) && !transient(err) {
			// The registry did not like what it got: it may be the disk's fault.
			err = errors.Join(err, s.dropDamaged(ctx, rec.Target))
		}
		return agentapi.Result{}, fmt.Errorf("push %s: %w", full, err)
	}
	if cargo.note != "" {
		report(agentapi.Progress{Status: cargo.note})
	}
	s.log.Info("image pushed", "image", full, "digest", cargo.root.Digest)
	return agentapi.Result{Name: full, Digest: cargo.root.Digest.String(), Size: cargo.size}, nil
}

// hold keeps an image until the lease of ctx ends.
func (s *Store) hold(ctx context.Context, target ocispec.Descriptor) error {
	id, _ := leases.FromContext(ctx)
	return s.leases.AddResource(ctx, leases.Lease{ID: id}, leases.Resource{ID: target.Digest.String(), Type: "content"})
}

// pushAs tries the credentials that fit in order. Anything but a refusal ends it.
func (s *Store) pushAs(ctx context.Context, name string, c cargo, auth []Credential, report func(agentapi.Progress)) error {
	host, repo, _ := strings.Cut(repository(name), "/")
	candidates := matching(auth, host, repo)
	if len(candidates) == 0 {
		candidates = []Credential{{}}
	}
	var errs []error
	for _, cred := range candidates {
		p, err := s.newSender(ctx, name, c, s.registryHosts(cred, auth), report)
		if err != nil {
			return err
		}
		if err = p.run(ctx); err == nil {
			return s.noteSource(ctx, c.all(), name)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, explain(host, cred, "push", err))
		if !denied(err) {
			break
		}
	}
	return errors.Join(errs...)
}

// sender sends one cargo with one credential.
type sender struct {
	store   *Store
	cargo   cargo
	pusher  remotes.Pusher
	tracker docker.StatusTracker
	report  func(agentapi.Progress)
}

func (s *Store) newSender(ctx context.Context, name string, c cargo, hosts docker.RegistryHosts, report func(agentapi.Progress)) (*sender, error) {
	tracker := docker.NewInMemoryTracker()
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: hosts, Tracker: tracker})
	// With its digest, the root gets the tag, and what is below it none.
	pusher, err := resolver.Pusher(ctx, name+"@"+c.root.Digest.String())
	return &sender{store: s, cargo: c, pusher: pusher, tracker: tracker, report: report}, err
}

// run sends blobs side by side, then manifests in order: a registry takes none
// whose blobs it has not got.
func (t *sender) run(ctx context.Context) error {
	group, blobs := errgroup.WithContext(ctx)
	group.SetLimit(parallelPush)
	for _, desc := range t.cargo.blobs {
		group.Go(func() error { return t.send(blobs, desc) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, desc := range t.cargo.manifests {
		if err := t.send(ctx, desc); err != nil {
			return err
		}
	}
	return nil
}

// send sends one blob or manifest, again after an error that may pass.
func (t *sender) send(ctx context.Context, desc ocispec.Descriptor) error {
	for round := 0; ; round++ {
		err := t.sendOnce(ctx, desc)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if round == pushRounds-1 || !transient(err) {
			return fmt.Errorf("send blob %s: %w", desc.Digest, err)
		}
		t.tell(desc, agentapi.Progress{Status: "Retrying"})
		if err := pause(ctx, fetchBackoff<<round); err != nil {
			return err
		}
	}
}

func (t *sender) sendOnce(ctx context.Context, desc ocispec.Descriptor) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	counted := countingPusher{t.pusher, func(n int64) {
		t.tell(desc, agentapi.Progress{Status: "Pushing", Current: n, Total: desc.Size})
	}}
	if _, err := remotes.PushHandler(counted, t.store.content)(ctx, desc); err != nil {
		return err
	}
	status := "Pushed"
	if st, err := t.tracker.GetStatus(remotes.MakeRefKey(ctx, desc)); err == nil {
		switch {
		case st.Exists:
			status = "Layer already exists"
		case st.MountedFrom != "":
			status = "Mounted from " + st.MountedFrom
		}
	}
	t.tell(desc, agentapi.Progress{Status: status, Current: desc.Size, Total: desc.Size})
	return nil
}

func (t *sender) tell(desc ocispec.Descriptor, line agentapi.Progress) {
	line.ID = desc.Digest.String()
	t.report(line)
}
