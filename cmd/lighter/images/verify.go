package images

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/docker/cli/cli/config/types"
)

// maxAnswer bounds what is read of a registry's answer.
const maxAnswer = 64 << 10

// errRefused: the registry does not know this user with this password.
var errRefused = errors.New("the registry refused the user name or password")

// verifier asks registries whether they take a login, by the API's version check
// (OCI distribution-spec, "GET /v2/").
type verifier struct {
	client *http.Client
}

// newVerifier trusts the system's authorities and those in caFile, if it is given.
func newVerifier(caFile string) (verifier, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if caFile != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return verifier{}, err
		}
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return verifier{}, fmt.Errorf("--ca-file: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return verifier{}, fmt.Errorf("--ca-file: %s holds no PEM certificate", caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return verifier{&http.Client{Transport: transport}}, nil
}

// verify returns the login as it is to be kept: with an identity token instead
// of the password where the registry gave one.
func (v verifier) verify(ctx context.Context, registry string, login types.AuthConfig) (types.AuthConfig, error) {
	host, err := docker.DefaultHost(registry)
	if err != nil {
		return login, err
	}
	token, err := v.ping(ctx, "https://"+host+"/v2/", login)
	if local, _ := docker.MatchLocalhost(registry); local && errors.Is(err, http.ErrSchemeMismatch) {
		// As Docker does: a registry on this machine may do without TLS.
		token, err = v.ping(ctx, "http://"+host+"/v2/", login)
	}
	if err != nil {
		return login, fmt.Errorf("log in to %s: %w", registry, hint(err))
	}
	if token != "" {
		login.Password, login.IdentityToken = "", token
	}
	return login, nil
}

// ping tries without a login first: the answer says which way the registry wants
// it (RFC 9110, section 11.6.1).
func (v verifier) ping(ctx context.Context, url string, login types.AuthConfig) (identityToken string, err error) {
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(v.client),
		docker.WithAuthCreds(func(string) (string, string, error) { return login.Username, login.Password, nil }),
		docker.WithFetchRefreshToken(func(_ context.Context, token string, _ *http.Request) { identityToken = token }))
	first, err := v.get(ctx, url, nil) //nolint:bodyclose // get has closed it
	if err != nil {
		return "", err
	}
	if first.StatusCode == http.StatusOK {
		return "", nil // it wants no login at all
	}
	if first.StatusCode != http.StatusUnauthorized {
		return "", fmt.Errorf("%s answers %s: is it a registry?", url, first.Status)
	}
	if err := authorizer.AddResponses(ctx, []*http.Response{first}); err != nil {
		return "", fmt.Errorf("%w: %w", errRefused, err)
	}
	second, err := v.get(ctx, url, authorizer) //nolint:bodyclose // get has closed it
	switch {
	case err != nil:
		return "", err
	case second.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%w (%s)", errRefused, second.Status)
	}
	return identityToken, nil
}

// get returns an answer whose body is read and closed.
func (v verifier) get(ctx context.Context, url string, authorizer docker.Authorizer) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if authorizer != nil {
		if err := authorizer.Authorize(ctx, request); err != nil {
			return nil, fmt.Errorf("%w: %w", errRefused, err)
		}
	}
	response, err := v.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	// Read to the end, so that the connection can be used again.
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer))
	return response, err
}

// hint adds what helps against a certificate that nobody knows.
func hint(err error) error {
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w (give the registry's authority with --ca-file, and to the hosts with --registry-ca)", err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w (only a registry on this machine may do without TLS)", err)
	}
	return err
}
