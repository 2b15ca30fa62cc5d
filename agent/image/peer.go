package image

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxManifest is the size from which a manifest is not believed, in bytes.
	maxManifest = 4 << 20
	// maxPeers is how many holders of one image are asked.
	maxPeers = 8
	// peerAnswer is how long a peer may take to begin its answer.
	peerAnswer = 5 * time.Second
)

// errNoPeer: nobody that could be asked holds the image. Not worth telling when
// a registry can be asked as well.
var errNoPeer = errors.New("no peer holds it")

// Peer is another agent. URL is the address under which its Handler is served
// ("https://10.0.0.2:10250"), without a path.
type Peer struct{ Name, URL string }

// PeerFinder finds the agents that hold an image, this one excluded.
type PeerFinder interface {
	// Holders are the peers that hold an index or manifest digest.
	Holders(ctx context.Context, dgst digest.Digest) []Peer
}

// NameFinder is what a PeerFinder may also know: the peers that have an image
// under its full name, so that a registry need not be asked what it means.
type NameFinder interface {
	Named(ctx context.Context, name string) []Peer
}

func newPeerClient(cfg *tls.Config, stall time.Duration) *http.Client {
	return &http.Client{Transport: guardStalls(&http.Transport{
		TLSClientConfig:       cfg,
		DialContext:           (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: peerAnswer,
		MaxIdleConnsPerHost:   parallelBlobs,
		IdleConnTimeout:       30 * time.Second,
	}, stall)}
}

// holders are the peers to ask for a digest, in random order so that many
// hosts that want one image do not all ask the same.
func (s *Store) holders(ctx context.Context, dgst digest.Digest) []Peer {
	if s.cfg.Peers == nil {
		return nil
	}
	return shuffle(s.cfg.Peers.Holders(ctx, dgst))
}

func shuffle(peers []Peer) []Peer {
	out := append([]Peer(nil), peers...)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out[:min(len(out), maxPeers)]
}

func (s *Store) peerSources(peers []Peer) []source {
	var out []source
	seen := map[string]bool{}
	for _, p := range peers {
		if !seen[p.URL] {
			seen[p.URL] = true
			out = append(out, source{name: "host " + p.Name, fetcher: peerFetcher{s.peers, p}, peer: true})
		}
	}
	return out
}

// named is a peer's answer about a name.
type named struct {
	Peer   Peer `json:"-"`
	Target ocispec.Descriptor
	Origin string
}

// askName asks peers what a name means and takes the first answer, or with
// ownOnly the first about an image that the cluster built or imported.
func (s *Store) askName(ctx context.Context, name string, ownOnly bool) (named, error) {
	finder, ok := s.cfg.Peers.(NameFinder)
	if !ok {
		return named{}, errNoPeer
	}
	var errs []error
	for _, p := range shuffle(finder.Named(ctx, name)) {
		raw, err := s.getSmall(ctx, p, "/content/ref/"+name)
		if err == nil {
			found := named{Peer: p}
			switch err = json.Unmarshal(raw, &found); {
			case err != nil:
			case found.Target.Digest.Validate() != nil:
				err = fmt.Errorf("digest %q is not one", found.Target.Digest)
			case ownOnly && found.Origin == "":
				err = errors.New("it pulled the image from a registry")
			default:
				return found, nil
			}
		}
		errs = append(errs, fmt.Errorf("host %s: %w", p.Name, err))
	}
	return named{}, errors.Join(append(errs, errNoPeer)...)
}

// askVersion asks peers for an exact version, and tells whose it is: one that
// nobody declares is asked for as everybody's first, then as a build of the
// namespace whose Image is gone. What one namespace built is recorded as its.
func (s *Store) askVersion(ctx context.Context, peers []Peer, sub subject, want digest.Digest) (ocispec.Descriptor, subject, error) {
	if !sub.built {
		target, err := s.askDigest(ctx, peers, "", want)
		if err == nil || sub.namespace == "" || ctx.Err() != nil || errors.Is(err, errNoPeer) {
			return target, sub, err
		}
		sub.built = true
	}
	target, err := s.askDigest(ctx, peers, sub.namespace, want)
	return target, sub, err
}

// askDigest gets the index or manifest of an exact version from the first peer
// that sends the right bytes. They travel on inside the descriptor. Peers give
// a namespace what it may use, see find.
func (s *Store) askDigest(ctx context.Context, peers []Peer, namespace string, want digest.Digest) (ocispec.Descriptor, error) {
	if err := want.Validate(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: digest %q: %w", ErrInvalidName, want, err)
	}
	var errs []error
	for _, p := range peers {
		raw, err := s.getSmall(ctx, p, "/content/"+want.String()+"?namespace="+url.QueryEscape(namespace))
		if err == nil && want.Algorithm().FromBytes(raw) != want {
			err = fmt.Errorf("what it sent does not match digest %s", want)
			s.log.Warn("blob does not match its digest, dropped", "digest", want, "from", p.Name)
			s.reportCorrupt(ctx, p, want)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("host %s: %w", p.Name, err))
			continue
		}
		return ocispec.Descriptor{MediaType: sniffMediaType(raw), Digest: want, Size: int64(len(raw)), Data: raw}, nil
	}
	if len(errs) == 0 {
		return ocispec.Descriptor{}, errNoPeer
	}
	return ocispec.Descriptor{}, errors.Join(errs...)
}

// sniffMediaType tells an index from a manifest; OCI makes the field optional.
func sniffMediaType(raw []byte) string {
	var doc struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
	}
	if json.Unmarshal(raw, &doc) != nil {
		return "application/octet-stream"
	}
	if doc.MediaType != "" {
		return doc.MediaType
	}
	if doc.Manifests != nil {
		return ocispec.MediaTypeImageIndex
	}
	return ocispec.MediaTypeImageManifest
}

// getSmall reads a short document from a peer.
func (s *Store) getSmall(ctx context.Context, p Peer, path string) ([]byte, error) {
	resp, err := askPeer(ctx, s.peers, http.MethodGet, p, path, 0)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var buf bytes.Buffer
	if n, err := io.Copy(&buf, io.LimitReader(resp.Body, maxManifest+1)); err != nil {
		return nil, err
	} else if n > maxManifest {
		return nil, errors.New("its manifest is too large")
	}
	return buf.Bytes(), nil
}

// reportCorrupt makes a peer check a blob that arrived damaged; it drops the
// blob if its disk is to blame.
func (s *Store) reportCorrupt(ctx context.Context, p Peer, dgst digest.Digest) {
	resp, err := askPeer(ctx, s.peers, http.MethodHead, p, "/content/"+dgst.String()+"?verify=1", 0)
	if err == nil {
		resp.Body.Close()
	}
}

// askPeer sends one request; answers other than 2xx are errors.
func askPeer(ctx context.Context, client *http.Client, method string, p Peer, path string, offset int64) (*http.Response, error) {
	u, err := url.Parse(strings.TrimSuffix(p.URL, "/") + path)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		err = errdefs.ErrNotFound
	case resp.StatusCode/100 != 2, offset > 0 && resp.StatusCode != http.StatusPartialContent:
		err = fmt.Errorf("unexpected answer %s", resp.Status)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// peerFetcher is a remotes.Fetcher for one peer.
type peerFetcher struct {
	client *http.Client
	peer   Peer
}

func (p peerFetcher) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return &peerReader{ctx: ctx, p: p, desc: desc}, nil
}

// peerReader opens its connection at the first Read, so that Seek before it
// becomes a range request (RFC 9110, section 14).
type peerReader struct {
	ctx    context.Context
	p      peerFetcher
	desc   ocispec.Descriptor
	offset int64
	body   io.ReadCloser
}

func (r *peerReader) Read(b []byte) (int, error) {
	if r.body == nil {
		resp, err := askPeer(r.ctx, r.p.client, http.MethodGet, r.p.peer, "/content/"+r.desc.Digest.String(), r.offset) //nolint:bodyclose // Close does it
		if err != nil {
			return 0, err
		}
		r.body = resp.Body
	}
	return r.body.Read(b)
}

// Seek moves to an absolute offset before the first Read.
func (r *peerReader) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || r.body != nil {
		return 0, errors.New("only a seek from the start before reading is possible")
	}
	r.offset = offset
	return offset, nil
}

func (r *peerReader) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}
