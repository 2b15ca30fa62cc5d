package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/certificate/csr"
	"k8s.io/client-go/util/keyutil"

	"lighter.dev/lighter/api/jointoken"
)

const (
	// requestTimeout bounds one try.
	requestTimeout = 30 * time.Second
	// maxCA bounds what a server that is not verified yet may send, in bytes.
	maxCA = 1 << 20
	// refusals is how often the API may refuse a token before we believe it: a
	// server learns of a new token some moments after it was made.
	refusals = 6
)

// finalError is what no retry can heal.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

func final(format string, args ...any) error { return finalError{fmt.Errorf(format, args...)} }

// join gets the CA and a client certificate. why says what is wrong with those
// that the host has.
func (i *Identity) join(ctx context.Context, why string) error {
	token, err := i.token(ctx, why)
	if err != nil {
		return err
	}
	i.cfg.Log.Info("joining the cluster", "server", i.cfg.Server, "why", why)
	if err := i.retry(ctx, "fetch the cluster's CA", func(ctx context.Context) error { return i.fetchCA(ctx, token) }); err != nil {
		return err
	}
	if err := i.remember(token.CAHash); err != nil {
		return err
	}
	// What is left from before may be another cluster's; Run gets a new one.
	if err := i.serving.forget(); err != nil {
		return err
	}
	refused := 0
	return i.retry(ctx, "get a client certificate", func(ctx context.Context) error {
		err := i.requestClient(ctx, token)
		if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
			if refused++; refused >= refusals {
				return final("the server does not accept join token %s: it has expired or was deleted; make a new one with 'lighter token create' on the server (%w)", token.ID, err)
			}
		}
		return err
	})
}

// token is the join token to use.
func (i *Identity) token(ctx context.Context, why string) (jointoken.Token, error) {
	text := i.cfg.Token
	if text == "" && i.cfg.NewToken != nil {
		var err error
		if text, err = i.cfg.NewToken(ctx); err != nil {
			return jointoken.Token{}, fmt.Errorf("identity: make a join token: %w", err)
		}
	}
	if text == "" {
		return jointoken.Token{}, fmt.Errorf("identity: %s: give the agent a join token (--token), which 'lighter token create' makes on the server", why)
	}
	return i.parse(text)
}

// retry repeats try until it succeeds, fails for good or ctx ends.
func (i *Identity) retry(ctx context.Context, what string, try func(context.Context) error) error {
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 8, Cap: 5 * time.Second}
	var last error
	for {
		attempt, cancel := context.WithTimeout(ctx, requestTimeout)
		err := try(attempt)
		cancel()
		var forGood finalError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &forGood):
			return fmt.Errorf("identity: %w", err)
		case ctx.Err() == nil || last == nil:
			last = err // later ones only say that ctx has ended
		}
		pause := backoff.Step()
		if ctx.Err() == nil {
			i.cfg.Log.Warn("joining the cluster: trying again", "what", what, "server", i.cfg.Server, "in", pause, "error", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("identity: %s: %w: %w", what, context.Cause(ctx), last)
		case <-time.After(pause):
		}
	}
}

// fetchCA asks the server for its CA. Whoever answers cannot be verified yet; the
// answer is, by the hash in the token.
func (i *Identity) fetchCA(ctx context.Context, token jointoken.Token) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(i.cfg.Server, "/")+"/cacerts", nil)
	if err != nil || request.URL.Scheme != "https" || request.URL.Host == "" {
		return final("%q is not the URL of a server: want https://<host>:<port>", i.cfg.Server)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the hash in the token verifies what comes
	}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxCA))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", request.URL, response.Status)
	}
	if err := token.Verify(text); err != nil {
		return final("%s: %w", i.cfg.Server, err)
	}
	return i.trust(text)
}

// requestClient makes a key and has it certified.
func (i *Identity) requestClient(ctx context.Context, token jointoken.Token) error {
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: i.cfg.Server, BearerToken: token.Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: i.caPEM, ServerName: serverName},
	})
	if err != nil {
		return final("%w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: nodePrefix + i.cfg.NodeName, Organization: []string{nodesGroup}}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return final("%w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	name, uid, err := csr.RequestCertificateWithContext(ctx, client, text, "", certificatesv1.KubeAPIServerClientKubeletSignerName, nil, clientUsages, key)
	if err != nil {
		return err
	}
	cert, err := csr.WaitForCertificate(ctx, client, name, uid)
	if err != nil {
		if reason := denied(ctx, client, name); reason != nil {
			return reason
		}
		return err
	}
	keyText, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return final("%w", err)
	}
	if _, err := i.client.Update(cert, keyText); err != nil {
		return final("keep the client certificate: %w", err)
	}
	return nil
}

// denied is the server's reason not to sign, if that is why there is no certificate.
func denied(ctx context.Context, client kubernetes.Interface, name string) error {
	request, err := client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil //nolint:nilerr // the caller has the error that matters
	}
	for _, c := range request.Status.Conditions {
		if c.Type == certificatesv1.CertificateDenied && c.Status == corev1.ConditionTrue {
			return final("the server refuses this host: %s", c.Message)
		}
	}
	return nil
}
