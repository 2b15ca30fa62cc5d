package lifecycle

import (
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// Discovery tells what kinds there are; client-go's discovery clients do. One that
// caches must not do so for longer than new kinds may go unnoticed.
type Discovery interface {
	ServerPreferredResources() ([]*metav1.APIResourceList, error)
}

// resource is one kind that the API server serves, in its preferred version.
type resource struct {
	schema.GroupVersionResource
	kind       string
	namespaced bool
	verbs      []string
}

func (r resource) can(verbs ...string) bool {
	for _, verb := range verbs {
		if !slices.Contains(r.verbs, verb) {
			return false
		}
	}
	return true
}

// discoverResources lists every kind. If some groups do not answer, it returns the
// others together with an error that says which.
func discoverResources(client Discovery) ([]resource, error) {
	lists, err := client.ServerPreferredResources()
	var partial *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &partial) {
		return nil, fmt.Errorf("discover the API's kinds: %w", err)
	}
	var all []resource
	for _, list := range lists {
		gv, parseErr := schema.ParseGroupVersion(list.GroupVersion)
		if parseErr != nil {
			err = errors.Join(err, fmt.Errorf("discover the API's kinds: %w", parseErr))
			continue
		}
		for _, r := range list.APIResources {
			all = append(all, resource{gv.WithResource(r.Name), r.Kind, r.Namespaced, r.Verbs})
		}
	}
	return all, err
}
