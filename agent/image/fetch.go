package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// fetchRounds is how often all sources are asked for a blob before the pull
	// fails. What arrived is kept: each try goes on where the last one broke off.
	fetchRounds = 4
	// fetchBackoff is the pause after the first round; it doubles.
	fetchBackoff = 200 * time.Millisecond
)

// source is one place that blobs can be fetched from.
type source struct {
	name    string
	fetcher remotes.Fetcher
	// peer sources share the load; others are the last resort.
	peer bool
}

// fetcher fetches the blobs of one image from several sources.
type fetcher struct {
	store   *Store
	sources []source
	report  func(Progress)
	next    atomic.Uint32

	mu          sync.Mutex
	done, total int64
}

func newFetcher(s *Store, sources []source, report func(Progress)) *fetcher {
	if report == nil {
		report = func(Progress) {}
	}
	return &fetcher{store: s, sources: sources, report: report}
}

// handle is an images.Handler that makes one blob present and verified.
func (f *fetcher) handle(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var errs []error
	mine := f.takeTurn(ctx, desc)
	if mine != nil {
		defer mine.leave()
	}
	for round := range fetchRounds {
		if round > 0 {
			if err := pause(ctx, fetchBackoff<<(round-1)); err != nil {
				return nil, err
			}
		}
		again := false
		errs = errs[:0]
		for _, src := range f.order() {
			err := f.fetchOnce(ctx, src, desc, mine)
			if err == nil {
				return nil, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			errs = append(errs, fmt.Errorf("from %s: %w", src.name, err))
			again = again || transient(err)
		}
		if !again {
			break
		}
	}
	return nil, fmt.Errorf("fetch blob %s: %w", desc.Digest, errors.Join(errs...))
}

// fetchOnce tries one source, a registry in turn with other hosts if mine is not nil.
func (f *fetcher) fetchOnce(ctx context.Context, src source, desc ocispec.Descriptor, mine *turn) error {
	if mine == nil || src.peer {
		return f.fetchFrom(ctx, src, desc)
	}
	return f.fetchInTurn(ctx, src, desc, mine)
}

// order puts peers first, each time starting with another one.
func (f *fetcher) order() []source {
	var peers, rest []source
	for _, src := range f.sources {
		if src.peer {
			peers = append(peers, src)
		} else {
			rest = append(rest, src)
		}
	}
	if n := len(peers); n > 1 {
		k := int(f.next.Add(1)) % n
		peers = append(peers[k:n:n], peers[:k]...)
	}
	if out := append(peers, rest...); len(out) > 0 {
		return out
	}
	return []source{{name: "this host", fetcher: nowhere{}}}
}

// fetchFrom fetches one blob from one source. A blob that does not match its
// digest is dropped whole, so that the next source starts from nothing.
func (f *fetcher) fetchFrom(ctx context.Context, src source, desc ocispec.Descriptor) error {
	err := remotes.Fetch(ctx, f.store.content, countingFetcher{src.fetcher, f}, desc)
	switch {
	case err == nil:
		return nil
	case errdefs.IsAlreadyExists(err):
		f.moved(desc.Size, BlobProgress{Digest: desc.Digest, Done: desc.Size, Total: desc.Size, Present: true})
		return nil
	case errdefs.IsFailedPrecondition(err):
		f.store.log.Warn("blob does not match its digest, dropped", "digest", desc.Digest, "from", src.name, "error", err)
		if p, ok := src.fetcher.(peerFetcher); ok {
			f.store.reportCorrupt(ctx, p.peer, desc.Digest)
		}
		ref := remotes.MakeRefKey(ctx, desc)
		if aerr := f.store.content.Abort(ctx, ref); aerr != nil && !errdefs.IsNotFound(aerr) {
			return errors.Join(err, aerr)
		}
		return fmt.Errorf("what it sent does not match the digest: %w", err)
	default:
		return err
	}
}

// counting wraps the children handler to learn how much there is to fetch.
func (f *fetcher) counting(children images.HandlerFunc) images.HandlerFunc {
	return func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		descs, err := children(ctx, desc)
		var sum int64
		for _, d := range descs {
			sum += d.Size
		}
		f.add(0, sum)
		return descs, err
	}
}

func (f *fetcher) add(done, total int64) {
	f.mu.Lock()
	f.total += total
	f.mu.Unlock()
	f.moved(done, BlobProgress{})
}

// moved reports that bytes of a blob arrived.
func (f *fetcher) moved(n int64, blob BlobProgress) {
	f.mu.Lock()
	f.done += n
	p := Progress{Done: min(f.done, f.total), Total: f.total, Blob: blob}
	f.mu.Unlock()
	f.report(p)
}

// countingFetcher reports bytes as they are read.
type countingFetcher struct {
	remotes.Fetcher
	f *fetcher
}

func (c countingFetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := c.Fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	return &countingReader{ReadCloser: rc, f: c.f, blob: BlobProgress{Digest: desc.Digest, Total: desc.Size}}, nil
}

type countingReader struct {
	io.ReadCloser
	f    *fetcher
	blob BlobProgress
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.moved(int64(n))
	}
	return n, err
}

func (c *countingReader) moved(n int64) {
	c.blob.Done = min(c.blob.Done+n, c.blob.Total)
	c.f.moved(n, c.blob)
}

// Seek lets a broken fetch go on at an offset, if the source can.
func (c *countingReader) Seek(offset int64, whence int) (int64, error) {
	seeker, ok := c.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.New("source cannot resume")
	}
	n, err := seeker.Seek(offset, whence)
	if err == nil && whence == io.SeekStart {
		c.moved(n)
	}
	return n, err
}

// nowhere is the source of an image that has to be here already.
type nowhere struct{}

func (nowhere) Fetch(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, fmt.Errorf("blob %s: %w", desc.Digest, errdefs.ErrNotFound)
}

// pause waits, or ends with ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
