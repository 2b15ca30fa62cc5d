package env

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func sources() Sources {
	notFound := func(kind, name string) error {
		return apierrors.NewNotFound(corev1.Resource(kind), name)
	}
	return Sources{
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", Labels: map[string]string{"app": "shop"}},
			Spec:       corev1.PodSpec{ServiceAccountName: "robot", Containers: []corev1.Container{{Name: "main"}}},
		},
		ConfigMap: func(name string) (*corev1.ConfigMap, error) {
			if name != "settings" {
				return nil, notFound("configmaps", name)
			}
			return &corev1.ConfigMap{Data: map[string]string{"colour": "blue", "size": "L"}}, nil
		},
		Secret: func(name string) (*corev1.Secret, error) {
			if name != "keys" {
				return nil, notFound("secrets", name)
			}
			return &corev1.Secret{Data: map[string][]byte{"password": []byte("s3cret")}}, nil
		},
		PodIPs: []string{"10.0.0.5", "fd00::5"}, HostIPs: []string{"192.0.2.1"}, NodeName: "host-1",
		Allocatable: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")},
	}
}

func fromField(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func fromConfigMap(name, key string, optional bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional}}
}

func fromSecret(name, key string, optional bool) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: key, Optional: &optional}}
}

func TestMake(t *testing.T) {
	tests := map[string]struct {
		container corev1.Container
		want      []string
		err       string // part of it
	}{
		"values refer to earlier ones only": {
			container: corev1.Container{Env: []corev1.EnvVar{
				{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)-$(C)-$$(A)"}, {Name: "C", Value: "3"},
			}},
			want: []string{"A=1", "B=1-$(C)-$(A)", "C=3"},
		},
		"whole objects, with a prefix, before single variables": {
			container: corev1.Container{
				EnvFrom: []corev1.EnvFromSource{
					{Prefix: "CFG_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
					{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "keys"}}},
				},
				Env: []corev1.EnvVar{{Name: "SHIRT", Value: "$(CFG_colour) $(CFG_size)"}},
			},
			want: []string{"CFG_colour=blue", "CFG_size=L", "password=s3cret", "SHIRT=blue L"},
		},
		"the downward API": {
			container: corev1.Container{Name: "main", Env: []corev1.EnvVar{
				{Name: "NODE", ValueFrom: fromField("spec.nodeName")}, {Name: "IPS", ValueFrom: fromField("status.podIPs")},
				{Name: "IP", ValueFrom: fromField("status.podIP")}, {Name: "HOST", ValueFrom: fromField("status.hostIP")},
				{Name: "APP", ValueFrom: fromField("metadata.labels['app']")}, {Name: "WHO", ValueFrom: fromField("spec.serviceAccountName")},
				{Name: "MEMORY", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
			}},
			want: []string{"NODE=host-1", "IPS=10.0.0.5,fd00::5", "IP=10.0.0.5", "HOST=192.0.2.1", "APP=shop", "WHO=robot", "MEMORY=2048"},
		},
		"single keys": {
			container: corev1.Container{Env: []corev1.EnvVar{
				{Name: "COLOUR", ValueFrom: fromConfigMap("settings", "colour", false)}, {Name: "PASSWORD", ValueFrom: fromSecret("keys", "password", false)},
			}},
			want: []string{"COLOUR=blue", "PASSWORD=s3cret"},
		},
		"what is optional may be missing": {
			container: corev1.Container{Env: []corev1.EnvVar{
				{Name: "A", ValueFrom: fromConfigMap("none", "x", true)}, {Name: "B", ValueFrom: fromConfigMap("settings", "none", true)},
				{Name: "C", ValueFrom: fromSecret("none", "x", true)}, {Name: "D", ValueFrom: fromSecret("keys", "none", true)}, {Name: "E", Value: "5"},
			}},
			want: []string{"E=5"},
		},
		"a missing object is named": {container: corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: fromConfigMap("none", "x", false)}}}, err: `configmaps "none" not found`},
		"a missing key is named":    {container: corev1.Container{Env: []corev1.EnvVar{{Name: "A", ValueFrom: fromSecret("keys", "none", false)}}}, err: "key none in Secret ns/keys"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			vars, err := Make(&tt.container, sources())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if got := Strings(vars); err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
		})
	}
}

// TestNotYet: a pod whose network is not there has no address to tell.
func TestNotYet(t *testing.T) {
	src := sources()
	src.PodIPs = nil
	_, err := Make(&corev1.Container{Env: []corev1.EnvVar{{Name: "IP", ValueFrom: fromField("status.podIP")}}}, src)
	if !errors.Is(err, ErrNotYet) {
		t.Errorf("error %v, want ErrNotYet", err)
	}
}

func TestExpand(t *testing.T) {
	vars := []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}
	if got := Expand([]string{"$(A)", "$$(A)", "$(B)", "$A"}, vars); !slices.Equal(got, []string{"2", "$(A)", "$(B)", "$A"}) {
		t.Errorf("got %q", got)
	}
	if got, err := ExpandPath("logs/$(A)", vars); err != nil || got != "logs/2" {
		t.Errorf("path: %q, %v", got, err)
	}
	if _, err := ExpandPath("$(B)/$(C)", vars); err == nil || !strings.Contains(err.Error(), `"B, C"`) {
		t.Errorf("unknown variables in a path: %v", err)
	}
}

func TestServicesFor(t *testing.T) {
	service := func(namespace, name, ip string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip}}
	}
	all := []*corev1.Service{
		service("default", "kubernetes", "10.43.0.1"), service("ns", "web", "10.43.0.2"), service("ns", "headless", "None"),
		service("other", "web", "10.43.0.3"), service("ns", "kubernetes", "10.43.0.4"),
	}
	no := false
	for name, tt := range map[string]struct {
		links *bool
		want  []string
	}{
		"its namespace's, which hide the API's own": {nil, []string{"ns/kubernetes", "ns/web"}},
		"without links the API's alone":             {&no, []string{"default/kubernetes"}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: corev1.PodSpec{EnableServiceLinks: tt.links}}
		var got []string
		for _, s := range ServicesFor(pod, all) {
			got = append(got, s.Namespace+"/"+s.Name)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
