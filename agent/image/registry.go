package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry holds the settings of one registry.
type Registry struct {
	// Mirrors are base URLs that are asked before the registry itself, in order.
	Mirrors []string
	// Insecure allows plain HTTP and certificates that nobody vouches for.
	Insecure bool
	// CAFile is a PEM file of certificate authorities to trust besides the system's.
	CAFile string
}

// resolve asks a registry what a reference means. Credentials that match it are
// tried in order, then none.
func (s *Store) resolve(ctx context.Context, ref string, auth []Credential) (ocispec.Descriptor, source, error) {
	host, repo, _ := strings.Cut(ref, "/")
	candidates := matching(auth, host, repo)
	if len(candidates) == 0 {
		candidates = []Credential{{}}
	}
	var errs []error
	for _, cred := range candidates {
		resolver := docker.NewResolver(docker.ResolverOptions{Hosts: s.registryHosts(cred, auth)})
		name, desc, err := resolver.Resolve(ctx, ref)
		if err == nil {
			f, err := resolver.Fetcher(ctx, name)
			return desc, source{name: "registry " + host, fetcher: f}, err
		}
		if ctx.Err() != nil {
			return ocispec.Descriptor{}, source{}, ctx.Err()
		}
		errs = append(errs, explain(host, cred, "pull", err))
		if !denied(err) && !errdefs.IsNotFound(err) {
			break
		}
	}
	return ocispec.Descriptor{}, source{}, errors.Join(errs...)
}

// RegistryHosts is the configured view of registries, mirrors and certificates
// without credentials, for BuildKit, which adds those of its client's session.
func (s *Store) RegistryHosts() docker.RegistryHosts {
	return s.registryHosts(Credential{}, nil)
}

func (s *Store) registryHosts(cred Credential, auth []Credential) docker.RegistryHosts {
	return func(host string) ([]docker.RegistryHost, error) {
		cfg := s.cfg.Registries[host]
		client, err := registryClient(host, cfg, s.cfg.stall)
		if err != nil {
			return nil, err
		}
		authorizer := newTurnAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthCreds(func(asked string) (string, string, error) {
			c := cred
			if !sameHost(asked, host) {
				c = Credential{} // a mirror never sees the registry's password
				if m := matching(auth, asked, ""); len(m) > 0 {
					c = m[0]
				}
			}
			if c.IdentityToken != "" {
				return "", c.IdentityToken, nil
			}
			return c.Username, c.Password, nil
		})))
		out, err := s.mirrorHosts(cfg, client, authorizer)
		if err != nil {
			return nil, err
		}
		origin, err := docker.DefaultHost(host)
		if err != nil {
			return nil, err
		}
		return append(out, docker.RegistryHost{
			Client: client, Authorizer: authorizer, Host: origin, Scheme: "https", Path: "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
		}), nil
	}
}

// turnAuthorizer mends two faults of containerd's: it is asked for one request at a
// time, for it reads a token's end while another request writes it; and the body of a
// request that it does not let through is closed, as the transport does with one that
// fails there, or the writer of a blob would wait for its reader without end.
type turnAuthorizer struct {
	docker.Authorizer
	turn chan struct{} // holds an element while somebody asks
}

func newTurnAuthorizer(inner docker.Authorizer) turnAuthorizer {
	return turnAuthorizer{inner, make(chan struct{}, 1)}
}

func (a turnAuthorizer) Authorize(ctx context.Context, req *http.Request) error {
	err := a.ask(ctx, req)
	if err != nil && req.Body != nil {
		_ = req.Body.Close()
	}
	return err
}

func (a turnAuthorizer) ask(ctx context.Context, req *http.Request) error {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-a.turn }()
	return a.Authorizer.Authorize(ctx, req)
}

// mirrorHosts are a registry's mirrors. One that has settings of its own, such as
// a certificate authority, is asked by those, else by the registry's.
func (s *Store) mirrorHosts(cfg Registry, client *http.Client, authorizer docker.Authorizer) ([]docker.RegistryHost, error) {
	var out []docker.RegistryHost
	for _, m := range cfg.Mirrors {
		u, err := url.Parse(m)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("registry mirror %q: want a URL such as https://mirror.example", m)
		}
		use := client
		if own, ok := s.cfg.Registries[u.Host]; ok {
			if use, err = registryClient(u.Host, own, s.cfg.stall); err != nil {
				return nil, err
			}
		}
		out = append(out, docker.RegistryHost{
			Client: use, Authorizer: authorizer, Host: u.Host, Scheme: u.Scheme, Path: path.Join("/", u.Path, "v2"),
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		})
	}
	return out, nil
}

// registryClient makes the HTTP client for one registry. As Docker does, hosts
// on the loopback interface may speak plain HTTP.
func registryClient(host string, cfg Registry, stall time.Duration) (*http.Client, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: cfg.Insecure} //nolint:gosec // asked for by the operator, per host
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificate authority of registry %s: %w", host, err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority of registry %s: %s holds no PEM certificate", host, cfg.CAFile)
		}
		tlsConfig.RootCAs = pool
	}
	var rt http.RoundTripper = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       tlsConfig,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: stall,
		IdleConnTimeout:       30 * time.Second,
	}
	if local, _ := docker.MatchLocalhost(host); cfg.Insecure || local {
		rt = docker.NewHTTPFallback(rt)
	}
	return &http.Client{Transport: guardStalls(rt, stall)}, nil
}

// matching are the credentials whose host (and path prefix) fit a repository,
// in the order of the pod's imagePullSecrets, as the kubelet does it.
func matching(auth []Credential, host, repo string) []Credential {
	var out []Credential
	for _, c := range auth {
		entry := strings.TrimPrefix(strings.TrimPrefix(c.Host, "https://"), "http://")
		entryHost, prefix, _ := strings.Cut(strings.TrimSuffix(entry, "/"), "/")
		prefix = strings.TrimPrefix(strings.TrimPrefix(prefix, "v1"), "v2")
		prefix = strings.Trim(prefix, "/")
		if !hostMatches(entryHost, host) || (prefix != "" && repo != prefix && !strings.HasPrefix(repo, prefix+"/")) {
			continue
		}
		out = append(out, c)
	}
	return out
}

func hostMatches(pattern, host string) bool {
	if sameHost(pattern, host) {
		return true
	}
	ok, err := path.Match(pattern, host)
	return err == nil && ok && strings.Count(pattern, ".") == strings.Count(host, ".")
}

// sameHost knows Docker Hub's three names.
func sameHost(a, b string) bool {
	hub := func(h string) string {
		if h == "index.docker.io" || h == "registry-1.docker.io" {
			return "docker.io"
		}
		return h
	}
	return hub(a) == hub(b)
}
