package buildclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Protocol is the value of the Upgrade header (RFC 9110, section 7.8).
const Protocol = "lighter-build"

// answerWait is how long the API server and a builder may take to accept.
const answerWait = 30 * time.Second

// reachWait is how long to go on trying while the server asks for patience: it
// covers a builder's restart, and the time until a dead one counts as lost.
const reachWait = 15 * time.Second

// Dial opens a connection to a builder of the Image that cfg names, on which it
// speaks BuildKit's API.
func Dial(ctx context.Context, cfg Config) (net.Conn, error) {
	if cfg.Dial != nil {
		return cfg.Dial(ctx)
	}
	return dialAPI(ctx, cfg)
}

// dialAPI opens the subresource images/build of the API server.
func dialAPI(ctx context.Context, cfg Config) (net.Conn, error) {
	if cfg.REST == nil {
		return nil, errors.New("build: neither Dial nor REST is set")
	}
	base, _, err := rest.DefaultServerUrlFor(cfg.REST)
	if err != nil {
		return nil, fmt.Errorf("address of the API server: %w", err)
	}
	u := *base
	u.Path = strings.TrimSuffix(u.Path, "/") + fmt.Sprintf("/apis/lighter.dev/v1alpha1/namespaces/%s/images/%s/build", cfg.Namespace, cfg.Name)
	if cfg.Node != "" {
		u.RawQuery = url.Values{"node": {cfg.Node}}.Encode()
	}
	return patiently(ctx, reachWait, func() (net.Conn, error) { return Upgrade(ctx, cfg.REST, &u) })
}

// patiently repeats dial for as long as the answer is to come back later.
func patiently(ctx context.Context, limit time.Duration, dial func() (net.Conn, error)) (net.Conn, error) {
	deadline := time.Now().Add(limit)
	for {
		conn, err := dial()
		if err == nil {
			return conn, nil
		}
		seconds, later := apierrors.SuggestsClientDelay(err)
		pause := time.Duration(seconds) * time.Second
		if !later || time.Now().Add(pause).After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

// Upgrade sends POST to u with the TLS settings and credentials of config and
// returns the connection once the server has switched protocols. What the
// server says instead is the error.
func Upgrade(ctx context.Context, config *rest.Config, u *url.URL) (net.Conn, error) {
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, fmt.Errorf("TLS settings for %s: %w", u.Host, err)
	}
	up := &upgrader{tls: tlsConfig, dial: config.Dial}
	rt, err := rest.HTTPWrappersForConfig(config, up) // adds the credentials
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", u.Host, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", Protocol)
	resp, err := rt.RoundTrip(req) //nolint:bodyclose // the body is the connection, which the caller closes
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", u.Host, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return up.conn, nil
	}
	if up.conn != nil {
		defer up.conn.Close()
	}
	return nil, serverError(resp)
}

// serverError reads a metav1.Status, or whatever text the server sent.
func serverError(resp *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("server answered %s", resp.Status)
	}
	var status metav1.Status
	if json.Unmarshal(raw, &status) == nil && status.Kind == "Status" {
		return &apierrors.StatusError{ErrStatus: status}
	}
	return fmt.Errorf("server answered %s: %s", resp.Status, strings.TrimSpace(string(raw)))
}

// upgrader is a RoundTripper for one request on one connection of its own,
// which it keeps open.
type upgrader struct {
	tls  *tls.Config
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	conn net.Conn
}

func (up *upgrader) RoundTrip(req *http.Request) (*http.Response, error) {
	conn, err := up.connect(req.Context(), req.URL)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(req.Context(), func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(answerWait)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := req.Write(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, req)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if err := conn.SetDeadline(time.Time{}); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	up.conn = &readConn{Conn: conn, reader: reader}
	return resp, nil
}

func (up *upgrader) connect(ctx context.Context, u *url.URL) (net.Conn, error) {
	dial := up.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	addr := u.Host
	if u.Port() == "" {
		port := "80"
		if u.Scheme == "https" {
			port = "443"
		}
		addr = net.JoinHostPort(u.Hostname(), port)
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil || u.Scheme != "https" {
		return conn, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if up.tls != nil {
		cfg = up.tls.Clone()
	}
	cfg.NextProtos = []string{"http/1.1"} // HTTP/2 has no upgrade
	if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname()
	}
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return tc, nil
}

// readConn reads through the buffer that the response was read with.
type readConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c *readConn) Read(p []byte) (int, error) { return c.reader.Read(p) }
