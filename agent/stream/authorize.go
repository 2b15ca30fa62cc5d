package stream

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// The identities of the cluster's CA, as set by the control plane.
const (
	apiServerClient = "kube-apiserver-kubelet-client"
	adminGroup      = "system:masters"
	nodeGroup       = "system:nodes"
)

// ByCertificate authorises by the client certificate that the TLS layer verified:
// the API server may do everything, another node only what is below nodePaths
// (image content), all others nothing.
func ByCertificate(nodePaths ...string) func(*http.Request) error {
	return func(r *http.Request) error {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return fmt.Errorf("a client certificate of this cluster is needed: %w", errdefs.ErrUnauthenticated)
		}
		subject := r.TLS.VerifiedChains[0][0].Subject
		switch {
		case subject.CommonName == apiServerClient, slices.Contains(subject.Organization, adminGroup):
			return nil
		case slices.Contains(subject.Organization, nodeGroup):
			for _, path := range nodePaths {
				if strings.HasPrefix(r.URL.Path, path) {
					return nil
				}
			}
		}
		return fmt.Errorf("%q may not %s %s: %w", subject.CommonName, r.Method, r.URL.Path, errdefs.ErrPermissionDenied)
	}
}
