package image

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// answered is true if a registry was reached and said no.
func answered(err error) bool { return denied(err) || errdefs.IsNotFound(err) }

func denied(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden
	}
	return errors.Is(err, docker.ErrInvalidAuthorization)
}

// ExplainBase adds to an error about a base image, which BuildKit wanted from its
// registry with its client's credentials, what a person can do about it.
func ExplainBase(ref string, err error) error {
	named, invalid := reference.ParseNormalizedNamed(ref)
	if invalid != nil || reserved(named) {
		return err
	}
	return explain(reference.Domain(named), Credential{}, "build", err)
}

// explain adds to a registry's error what a person can do about it. what is "pull",
// "push" or "build".
func explain(host string, cred Credential, what string, err error) error {
	var netErr net.Error
	switch {
	case denied(err) && cred == Credential{}:
		advice := "log in (lighter login " + host + ")"
		switch what {
		case "pull":
			advice += ", or give the pod imagePullSecrets that name it"
		case "build":
			advice += " before the build, with --pull-secret for what the cluster builds by itself, or correct the password"
		}
		return classify(errdefs.ErrPermissionDenied, "registry %s wants credentials: %s: %w", host, advice, err)
	case denied(err) && what == "push":
		return classify(errdefs.ErrPermissionDenied, "registry %s refused user %q: the password is wrong (lighter login %s), or the user may not push there: %w", host, cred.Username, host, err)
	case denied(err):
		return classify(errdefs.ErrPermissionDenied, "registry %s refused user %q: correct the password (lighter login %s, or the pod's imagePullSecrets): %w", host, cred.Username, host, err)
	case errdefs.IsNotFound(err) && what == "push":
		return fmt.Errorf("registry %s does not take the image: it has no such repository, or is none: %w", host, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("registry %s has no such image or tag: check the name, or build it in the cluster with kind Image: %w", host, err)
	case errors.Is(err, errStalled):
		return classify(errdefs.ErrUnavailable, "registry %s does not answer: %w", host, err)
	case errors.As(err, &netErr):
		return classify(errdefs.ErrUnavailable, "registry %s cannot be reached: check the network or configure a mirror: %w", host, err)
	default:
		return fmt.Errorf("registry %s: %w", host, err)
	}
}

// classified is an error that is also of one of errdefs' kinds, though its text
// does not say so.
type classified struct {
	error
	kind error
}

func classify(kind error, format string, args ...any) error {
	return classified{fmt.Errorf(format, args...), kind}
}

func (c classified) Unwrap() []error { return []error{c.error, c.kind} }

// transient errors are worth another try.
func transient(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode >= 500 || status.StatusCode == http.StatusTooManyRequests
	}
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, errStalled)
}
