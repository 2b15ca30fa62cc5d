package images

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"lighter.dev/lighter/api/agentapi"
)

// TestOneHost: the verbs work on one agent without any API.
func TestOneHost(t *testing.T) {
	only := &agent{registry: map[string]string{nginx: digestOf('a')}, held: []agentapi.Image{{Names: []string{nginx}, Digest: digestOf('a'), Size: 1 << 20}}}
	server := httptest.NewServer(only.handler())
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{Cluster: OneHost(agentapi.NewClient(http.DefaultClient, base), "")}
	d.Out, d.Err = &d.out, &d.err
	for _, verb := range []struct {
		name string
		run  func() error
		want string
	}{
		{"list", func() error {
			return d.List(t.Context(), ListOptions{Format: Format{Template: "{{.Repository}}:{{.Tag}}"}})
		}, "nginx:latest\n"},
		{"pull", func() error { return d.Pull(t.Context(), "nginx", PullOptions{Quiet: true}) }, nginx + "\n"},
		{"remove", func() error { return d.Remove(t.Context(), []string{"nginx"}, false) }, "Untagged: nginx:latest\n"},
	} {
		d.out.Reset()
		if err := verb.run(); err != nil {
			t.Errorf("%s: %v", verb.name, err)
		}
		wants(t, verb.name, d.out.String(), verb.want)
	}
	if err := d.Remove(t.Context(), []string{"nginx"}, false); err == nil {
		t.Error("an image that is gone was removed once more")
	}
	if _, err := d.inspect(t.Context(), "nginx", ""); err == nil {
		t.Error("an image that is gone was inspected")
	}
}
