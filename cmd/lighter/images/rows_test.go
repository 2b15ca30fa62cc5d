package images

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"lighter.dev/lighter/api/agentapi"
	"lighter.dev/lighter/api/v1alpha1"
)

const nginx = "docker.io/library/nginx:latest"

func TestUnion(t *testing.T) {
	a, b, c := digestOf('a'), digestOf('b'), digestOf('c')
	other := imageObject("shop", c, "shop:v1")
	other.Namespace = "other"
	younger := imageObject("younger", c, "shop:v1")
	younger.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0))
	tests := []struct {
		name    string
		objects []*v1alpha1.Image
		held    held
		seen    view
		want    []string // namespace/object name digest hosts
	}{
		{"pulled on two hosts", nil, held{"h1": {{Names: []string{nginx}, Digest: a}}, "h2": {{Names: []string{nginx}, Digest: a}}}, ofNamespace,
			[]string{"/ nginx:latest a h1+h2"}},
		{"two versions of one name", nil, held{"h1": {{Names: []string{nginx}, Digest: a}}, "h2": {{Names: []string{nginx}, Digest: b}}}, ofNamespace,
			[]string{"/ nginx:latest a h1", "/ nginx:latest b h2"}},
		{"an object whose content a host has under no name", []*v1alpha1.Image{imageObject("shop", a, "shop:v1")}, held{"h1": {{Digest: a}}}, ofNamespace,
			[]string{"default/shop shop:v1 a h1"}},
		{"the object decides what its name means", []*v1alpha1.Image{imageObject("shop", a, "nginx")}, held{"h1": {{Names: []string{nginx}, Digest: b}}}, ofNamespace,
			[]string{"default/shop nginx:latest a "}},
		{"two names of one object", []*v1alpha1.Image{imageObject("shop", a, "shop:v1", "shop:v2")}, nil, ofNamespace,
			[]string{"default/shop shop:v1 a ", "default/shop shop:v2 a "}},
		{"the oldest claim counts", []*v1alpha1.Image{younger, imageObject("shop", a, "shop:v1")}, nil, ofNamespace,
			[]string{"default/shop shop:v1 a "}},
		{"a namespace for itself", []*v1alpha1.Image{imageObject("shop", a, "shop:v1"), other}, nil, ofAll,
			[]string{"default/shop shop:v1 a ", "other/shop shop:v1 c "}},
		{"pulled and declared elsewhere", []*v1alpha1.Image{imageObject("n", a, "nginx")}, held{"h1": {{Names: []string{nginx}, Digest: b}}}, ofAll,
			[]string{"/ nginx:latest b h1", "default/n nginx:latest a "}},
		{"a host that does not know yet that the object is gone", nil, held{"h1": {{Names: []string{nginx}, Namespaces: []string{"default"}, Digest: a}}}, ofNamespace, nil},
		{"a host by itself", nil, held{"h1": {{Names: []string{nginx}, Namespaces: []string{"default"}, Digest: a}}}, ofHost, []string{"/ nginx:latest a h1"}},
		{"without a name", nil, held{"h1": {{Digest: a}}}, ofNamespace, []string{"/ <none>:<none> a h1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var objects []v1alpha1.Image
			for _, object := range test.objects {
				objects = append(objects, *object)
			}
			var got []string
			for _, row := range union(objects, test.held, test.seen) {
				got = append(got, fmt.Sprintf("%s/%s %s:%s %c %s", row.Namespace, row.Object, row.repository(), row.tag(), row.Digest[7], strings.Join(row.Hosts, "+")))
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

func TestPick(t *testing.T) {
	old, young := time.Unix(1, 0), time.Unix(2, 0)
	rows := []Row{
		{Name: "docker.io/library/shop:v1", Object: "shop-v1", Digest: digestOf('a')},
		{Name: "docker.io/library/shop:v2", Object: "shop-v2", Digest: digestOf('a')},
		{Name: "registry.example/team/shop:v1", Digest: digestOf('b')},
		{Name: nginx, Digest: digestOf('c'), Created: old},
		{Name: nginx, Digest: digestOf('d'), Created: young},
		{Digest: "sha256:aaaa" + strings.Repeat("e", 60)},
	}
	tests := []struct{ ref, want, err string }{
		{"shop:v1", digestOf('a'), ""},
		{"docker.io/library/shop:v2", digestOf('a'), ""},
		{"nginx", digestOf('d'), ""}, // the newer one
		{"nginx@" + digestOf('c'), digestOf('c'), ""},
		{digestOf('b'), digestOf('b'), ""},
		{"bbbb", digestOf('b'), ""},
		{"aaaaaa", digestOf('a'), ""},
		{"sha256:aaaae", rows[5].Digest, ""},
		{"aaaa", "", "several images"},
		{"bbb", "", "no such image"},
		{"shop", "", "near it: registry.example/team/shop:v1, shop:v1, shop:v2"},
		{"Shop", "", "no such image"},
		{"unknown", "", "lighter pull"},
	}
	for _, test := range tests {
		row, err := pick(rows, test.ref)
		if row.Digest != test.want || (err == nil) != (test.err == "") || (err != nil && !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %s, %v, want %s, %q", test.ref, row.Digest, err, test.want, test.err)
		}
	}
}

// TestListWithoutRights: who may not ask hosts sees what the namespace declares.
func TestListWithoutRights(t *testing.T) {
	d := newDesk(t, map[string]*agent{"host-1": {}}, imageObject("shop", digestOf('c'), "shop:v1"))
	d.Kube.(*kubefake.Clientset).PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("nodes"), "", errors.New("not yours"))
	})
	if err := d.List(t.Context(), ListOptions{Format: Format{Template: "{{.Repository}}:{{.Tag}}"}}); err != nil {
		t.Fatal(err)
	}
	if d.out.String() != "shop:v1\n" {
		t.Errorf("lists %q", d.out.String())
	}
	wants(t, "warning", d.err.String(), "images that were pulled are not shown", "not yours")
}

func TestList(t *testing.T) {
	now := time.Unix(100_000, 0)
	agents := map[string]*agent{}
	for _, host := range []string{"host-1", "host-2", "host-3", "host-4", "host-5"} {
		agents[host] = &agent{held: []agentapi.Image{{Names: []string{nginx}, Digest: digestOf('a'), Size: 12_345_678, Created: now.Add(-3 * time.Hour)}, {Digest: digestOf('b')}}}
	}
	d := newDesk(t, agents, imageObject("shop", digestOf('c'), "team/shop:v1"), imageObject("empty", "", "empty"), node("host-6", "Unknown"))
	tests := []struct {
		name    string
		options ListOptions
		want    string
	}{
		{"table", ListOptions{}, "REPOSITORY   TAG      DIGEST         CREATED       SIZE     HOSTS\n" +
			"nginx        latest   aaaaaaaaaaaa   3 hours ago   12.3MB   host-1,host-2,+3\n" +
			"team/shop    v1       cccccccccccc   N/A           0B       <none>\n"},
		{"all, quiet", ListOptions{All: true, Format: Format{Quiet: true}}, "aaaaaaaaaaaa\ncccccccccccc\nbbbbbbbbbbbb\n"},
		{"filter", ListOptions{Filter: "team/*", Format: Format{Template: "{{.Repository}}:{{.Tag}} {{.Digest}}"}}, "team/shop:v1 " + digestOf('c') + "\n"},
		{"another tag", ListOptions{Filter: "nginx:1", Format: Format{Quiet: true}}, ""},
		{"full", ListOptions{Filter: "nginx", Format: Format{Full: true, Template: `{{.ID}} {{join .Hosts ","}}`}}, digestOf('a') + " host-1,host-2,host-3,host-4,host-5\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d.out.Reset()
			d.err.Reset()
			test.options.Format.Now = now
			if err := d.List(t.Context(), test.options); err != nil {
				t.Fatal(err)
			}
			if d.out.String() != test.want {
				t.Errorf("got\n%s\nwant\n%s", d.out.String(), test.want)
			}
			wants(t, "warnings", d.err.String(), "not Ready: host-6")
		})
	}
	if err := d.List(t.Context(), ListOptions{Format: Format{Template: "{{.Nothing"}}); err == nil {
		t.Error("a broken template was taken")
	}
}
