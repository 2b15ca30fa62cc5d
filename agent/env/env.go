// Package env computes the environment of a container, as the Kubernetes API
// describes it: service links, envFrom, env with its sources, and the
// expansion of $(VAR) in values, command and args.
//
// Make is a pure function of its Sources; a missing ConfigMap, Secret or key
// is an error that names it, which the pod worker shows as
// CreateContainerConfigError and retries when the object appears.
package env

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	podresource "k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// Sources is where values come from.
type Sources struct {
	Pod *corev1.Pod
	// ConfigMap and Secret read one object of the pod's namespace. Their error
	// is a Kubernetes NotFound when the object does not exist.
	ConfigMap func(name string) (*corev1.ConfigMap, error)
	Secret    func(name string) (*corev1.Secret, error)
	// Services are those whose addresses the container sees as variables.
	Services []*corev1.Service
	// PodIPs and HostIPs have the primary address first.
	PodIPs, HostIPs []string
	// NodeName is the value of spec.nodeName.
	NodeName string
	// Allocatable stands in for limits that the container does not set.
	Allocatable corev1.ResourceList
}

// Make returns the variables of a container in the order in which they were
// declared, so that a later one of the same name wins.
func Make(c *corev1.Container, src Sources) ([]corev1.EnvVar, error) {
	services := map[string]string{}
	for _, v := range envvars.FromServices(src.Services) {
		services[v.Name] = v.Value
	}
	known := map[string]string{}
	for i := range c.EnvFrom {
		if err := fromObject(&c.EnvFrom[i], src, known); err != nil {
			return nil, err
		}
	}
	var out []corev1.EnvVar
	for _, name := range slices.Sorted(maps.Keys(known)) {
		out = append(out, corev1.EnvVar{Name: name, Value: known[name]})
	}
	lookup := expansion.MappingFuncFor(known, services)
	for i := range c.Env {
		value, ok, err := resolve(c, &c.Env[i], src, lookup)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		known[c.Env[i].Name] = value
		out = append(out, corev1.EnvVar{Name: c.Env[i].Name, Value: value})
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, taken := known[name]; !taken {
			out = append(out, corev1.EnvVar{Name: name, Value: services[name]})
		}
	}
	return out, nil
}

// fromObject adds all keys of one envFrom entry to vars.
func fromObject(from *corev1.EnvFromSource, src Sources, vars map[string]string) error {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := src.ConfigMap(from.ConfigMapRef.Name)
		if err != nil {
			return unlessOptional(err, from.ConfigMapRef.Optional)
		}
		for k, v := range cm.Data {
			vars[from.Prefix+k] = v
		}
	case from.SecretRef != nil:
		secret, err := src.Secret(from.SecretRef.Name)
		if err != nil {
			return unlessOptional(err, from.SecretRef.Optional)
		}
		for k, v := range secret.Data {
			vars[from.Prefix+k] = string(v)
		}
	}
	return nil
}

// resolve computes one variable. ok is false when an optional source is missing.
func resolve(c *corev1.Container, v *corev1.EnvVar, src Sources, lookup func(string) string) (value string, ok bool, err error) {
	if v.Value != "" || v.ValueFrom == nil {
		return expansion.Expand(v.Value, lookup), true, nil
	}
	from := v.ValueFrom
	switch {
	case from.FieldRef != nil:
		value, err = Field(src.Pod, from.FieldRef.FieldPath, src.NodeName, src.PodIPs, src.HostIPs)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = Resource(src.Pod, from.ResourceFieldRef, c.Name, src.Allocatable)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		return configMapKey(from.ConfigMapKeyRef, src)
	case from.SecretKeyRef != nil:
		return secretKey(from.SecretKeyRef, src)
	}
	return "", false, fmt.Errorf("variable %s: this kind of valueFrom is not supported", v.Name)
}

func configMapKey(ref *corev1.ConfigMapKeySelector, src Sources) (string, bool, error) {
	cm, err := src.ConfigMap(ref.Name)
	if err != nil {
		return "", false, unlessOptional(err, ref.Optional)
	}
	if value, ok := cm.Data[ref.Key]; ok {
		return value, true, nil
	}
	if isTrue(ref.Optional) {
		return "", false, nil
	}
	return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, src.Pod.Namespace, ref.Name)
}

func secretKey(ref *corev1.SecretKeySelector, src Sources) (string, bool, error) {
	secret, err := src.Secret(ref.Name)
	if err != nil {
		return "", false, unlessOptional(err, ref.Optional)
	}
	if value, ok := secret.Data[ref.Key]; ok {
		return string(value), true, nil
	}
	if isTrue(ref.Optional) {
		return "", false, nil
	}
	return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, src.Pod.Namespace, ref.Name)
}

// unlessOptional forgives a missing object that was marked optional.
func unlessOptional(err error, optional *bool) error {
	if isTrue(optional) && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func isTrue(b *bool) bool { return b != nil && *b }

// ErrNotYet is returned for a field that has no value yet, such as the address
// of a pod whose network is not set up.
var ErrNotYet = errors.New("has no value yet")

// Field reads a downward API field of the pod.
func Field(pod *corev1.Pod, path, nodeName string, podIPs, hostIPs []string) (string, error) {
	switch path {
	case "spec.nodeName":
		return nodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return addresses(path, podIPs)
	case "status.hostIP", "status.hostIPs":
		return addresses(path, hostIPs)
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// addresses formats one address for …IP and all of them for …IPs.
func addresses(path string, ips []string) (string, error) {
	if len(ips) == 0 {
		return "", fmt.Errorf("field %s %w", path, ErrNotYet)
	}
	if strings.HasSuffix(path, "IPs") {
		return strings.Join(ips, ","), nil
	}
	return ips[0], nil
}

// Resource reads a limit or request, by default of the container named
// fallback; a limit that is not set counts as the node's allocatable amount.
func Resource(pod *corev1.Pod, ref *corev1.ResourceFieldSelector, fallback string, allocatable corev1.ResourceList) (string, error) {
	name := ref.ContainerName
	if name == "" {
		name = fallback
	}
	return podresource.ExtractResourceValueByContainerNameAndNodeAllocatable(ref, pod, name, allocatable)
}

// Expand replaces $(VAR) in the command, the arguments or a path. Unknown
// variables stay as they are, $$ is a literal $.
func Expand(in []string, vars []corev1.EnvVar) []string {
	values := make(map[string]string, len(vars))
	for _, v := range vars {
		values[v.Name] = v.Value
	}
	lookup := expansion.MappingFuncFor(values)
	var out []string
	for _, s := range in {
		out = append(out, expansion.Expand(s, lookup))
	}
	return out
}

// ExpandPath is Expand for a path of which every variable has to be known
// (subPathExpr).
func ExpandPath(in string, vars []corev1.EnvVar) (string, error) {
	values := make(map[string]string, len(vars))
	for _, v := range vars {
		values[v.Name] = v.Value
	}
	var missing []string
	out := expansion.Expand(in, func(name string) string {
		value, ok := values[name]
		if !ok {
			missing = append(missing, name)
		}
		return value
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %q", strings.Join(missing, ", "))
	}
	return out, nil
}

// Strings formats variables as NAME=value.
func Strings(vars []corev1.EnvVar) []string {
	out := make([]string, 0, len(vars))
	for _, v := range vars {
		out = append(out, v.Name+"="+v.Value)
	}
	return out
}

// ServicesFor picks the services whose variables a pod gets: those of its own
// namespace if it wants service links, and always default/kubernetes, by which
// clients in a cluster find the API.
func ServicesFor(pod *corev1.Pod, all []*corev1.Service) []*corev1.Service {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	byName := map[string]*corev1.Service{}
	for _, s := range all {
		if net.ParseIP(s.Spec.ClusterIP) == nil {
			continue
		}
		master := s.Namespace == masterNamespace && s.Name == "kubernetes"
		own := s.Namespace == pod.Namespace && links
		if !master && !own {
			continue
		}
		if _, taken := byName[s.Name]; taken && !own {
			continue
		}
		byName[s.Name] = s
	}
	var out []*corev1.Service
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

// masterNamespace is the namespace of the API's own service.
const masterNamespace = "default"
