package agentapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"k8s.io/client-go/rest"
)

// Client asks one agent. Errors that the agent or the API server answers are
// API errors (k8s.io/apimachinery/pkg/api/errors) with their HTTP code.
type Client struct{ endpoint }

// NewClient reaches an agent by any HTTP client; base is what its paths are
// appended to.
func NewClient(httpClient *http.Client, base *url.URL) *Client {
	return &Client{endpoint{httpClient, base}}
}

// NewProxyClient reaches a node's agent through the API server: the caller
// needs the right to use nodes/proxy.
func NewProxyClient(config *rest.Config, node string) (*Client, error) {
	to, err := newEndpoint(config, "api", "v1", "nodes", node, "proxy")
	return &Client{to}, err
}

// NewSocketClient reaches an agent by a Unix socket of its host.
func NewSocketClient(path string) *Client {
	var dialer net.Dialer
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", path)
	}}
	return NewClient(&http.Client{Transport: transport}, &url.URL{Scheme: "http", Host: "agent"})
}

// Images lists the host's images as a namespace sees them; "" sees those that
// were pulled.
func (c *Client) Images(ctx context.Context, namespace string) ([]Image, error) {
	var list []Image
	err := c.get(ctx, PathImages, query(ParamNamespace, namespace), &list)
	return list, err
}

// Inspect says what is in an image of the host.
func (c *Client) Inspect(ctx context.Context, namespace, ref string) (ImageDetails, error) {
	var details ImageDetails
	err := c.get(ctx, PathInspect, query(ParamNamespace, namespace, ParamRef, ref), &details)
	return details, err
}

// Save returns an archive of images, which the caller closes.
func (c *Client) Save(ctx context.Context, namespace string, refs ...string) (io.ReadCloser, error) {
	values := query(ParamNamespace, namespace)
	values[ParamRef] = refs
	response, err := c.do(ctx, http.MethodGet, PathSave, values, nil)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// Pull fetches an image from its registry. report gets every line before the
// result; it may be nil.
func (c *Client) Pull(ctx context.Context, namespace, ref string, credentials Credentials, report func(Progress)) (Result, error) {
	body, err := json.Marshal(credentials)
	if err != nil {
		return Result{}, err
	}
	return c.stream(ctx, PathPull, query(ParamNamespace, namespace, ParamRef, ref), bytes.NewReader(body), report)
}

// Push sends an image to the registry in its name, or in the name to.
func (c *Client) Push(ctx context.Context, namespace, ref, to string, credentials Credentials, report func(Progress)) (Result, error) {
	body, err := json.Marshal(credentials)
	if err != nil {
		return Result{}, err
	}
	return c.stream(ctx, PathPush, query(ParamNamespace, namespace, ParamRef, ref, ParamTo, to), bytes.NewReader(body), report)
}

// Remove takes a name away from the host, or an image by its digest. With force
// also what stopped containers use.
func (c *Client) Remove(ctx context.Context, ref string, force bool) (Removed, error) {
	values := query(ParamRef, ref)
	if force {
		values.Set(ParamForce, strconv.FormatBool(force))
	}
	var removed Removed
	err := c.post(ctx, PathRemove, values, &removed)
	return removed, err
}

// Prune removes images that no container uses: those without a name, or with
// all every one. What came within until is spared.
func (c *Client) Prune(ctx context.Context, all bool, until time.Duration) (Removed, error) {
	values := url.Values{}
	if all {
		values.Set(ParamAll, strconv.FormatBool(all))
	}
	if until > 0 {
		values.Set(ParamUntil, until.String())
	}
	var removed Removed
	err := c.post(ctx, PathPrune, values, &removed)
	return removed, err
}

// Usage says what lies on the host's disk.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	var usage Usage
	err := c.get(ctx, PathUsage, nil, &usage)
	return usage, err
}

// query makes parameters of names and values, and leaves out empty ones.
func query(pairs ...string) url.Values {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	return values
}

// endpoint sends requests below one address.
type endpoint struct {
	http *http.Client
	base *url.URL
}

// newEndpoint is an address of the API server.
func newEndpoint(config *rest.Config, path ...string) (endpoint, error) {
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return endpoint{}, err
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return endpoint{}, fmt.Errorf("address of the API server: %w", err)
	}
	return endpoint{httpClient, base.JoinPath(path...)}, nil
}
