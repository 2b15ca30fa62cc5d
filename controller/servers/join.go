package servers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"lighter.dev/lighter/api/jointoken"
)

const (
	// tryLimit bounds one try.
	tryLimit = 15 * time.Second
	// maxReply bounds what a server may send, in bytes.
	maxReply = 1 << 20
	// refusals is how often a token may be refused before we believe it: a server
	// learns of a new token some moments after it was made.
	refusals = 6
)

// Joiner asks a server to let this host become one.
type Joiner struct {
	// URL is any server's, https://host:port.
	URL     string
	Token   string
	Request Request
	Log     *slog.Logger
}

// finalError is what no retry can heal.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// Join asks until there is an answer, which ends it whether it is yes or no.
func (j *Joiner) Join(ctx context.Context) (*Reply, error) {
	token, err := jointoken.Parse(j.Token)
	if err != nil {
		return nil, err
	}
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 1.5, Jitter: 0.1, Steps: 8, Cap: 2 * time.Second}
	refused := 0
	var last error // of an attempt that the end of ctx did not cut short
	for {
		reply, err := j.try(ctx, token)
		var final finalError
		var answer *refusal
		switch {
		case err == nil:
			return reply, nil
		case errors.As(err, &final):
			return nil, fmt.Errorf("join the servers of %s: %w", j.URL, final.error)
		case errors.As(err, &answer) && answer.code != http.StatusServiceUnavailable:
			if refused++; refused >= refusals {
				return nil, fmt.Errorf("join the servers of %s: %s", j.URL, answer.advice(token.ID))
			}
		case ctx.Err() != nil && last != nil:
			return nil, fmt.Errorf("join the servers of %s: %w: %w", j.URL, context.Cause(ctx), last)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("join the servers of %s: %w", j.URL, err)
		default:
			j.Log.Warn("joining the other servers: trying again", "server", j.URL, "error", err)
		}
		last = err
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("join the servers of %s: %w: %w", j.URL, context.Cause(ctx), err)
		case <-time.After(backoff.Step()):
		}
	}
}

// try is one attempt. Whoever answers is verified by the hash in the token
// before it gets to see the token.
func (j *Joiner) try(ctx context.Context, token jointoken.Token) (*Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	base := strings.TrimSuffix(j.URL, "/")
	ca, err := j.send(ctx, &tls.Config{InsecureSkipVerify: true}, http.MethodGet, base+"/cacerts", "", nil) //nolint:gosec // the hash in the token verifies what comes
	if err != nil {
		return nil, err
	}
	if err := token.Verify(ca); err != nil {
		return nil, finalError{err}
	}
	block, _ := pem.Decode(ca) // the first one alone is what the hash speaks for
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, finalError{err}
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	body, err := json.Marshal(j.Request)
	if err != nil {
		return nil, finalError{err}
	}
	trusted := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: ServerName}
	text, err := j.send(ctx, trusted, http.MethodPost, base+Path, token.Bearer(), body)
	if err != nil {
		return nil, err
	}
	reply := &Reply{}
	if err := json.Unmarshal(text, reply); err != nil {
		return nil, fmt.Errorf("the server's answer: %w", err)
	}
	return reply, nil
}

func (j *Joiner) send(ctx context.Context, config *tls.Config, method, url, bearer string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, finalError{err}
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
		request.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return text, nil
	}
	return nil, answered(response, text)
}

// refusal is a "no" that may pass.
type refusal struct {
	code    int
	message string
}

func (r *refusal) Error() string { return r.message }

// advice is what a person reads when it did not pass.
func (r *refusal) advice(tokenID string) string {
	if r.code == http.StatusForbidden {
		return fmt.Sprintf("join token %s is one for agents: make one for servers with 'lighter token create --server'", tokenID)
	}
	return fmt.Sprintf("the server does not accept join token %s: it has expired or was deleted; make a new one with 'lighter token create --server' (%s)", tokenID, r.message)
}

// answered sorts the answers that are not a yes.
func answered(response *http.Response, text []byte) error {
	var status metav1.Status
	if json.Unmarshal(text, &status) != nil || status.Message == "" {
		status.Message = response.Request.URL.String() + " says " + response.Status
	}
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusServiceUnavailable:
		return &refusal{response.StatusCode, status.Message}
	case http.StatusBadRequest, http.StatusConflict, http.StatusNotFound:
		return finalError{errors.New(status.Message)}
	}
	return errors.New(status.Message)
}
