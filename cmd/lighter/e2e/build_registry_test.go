package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lighter.dev/lighter/api/v1alpha1"
)

// registryDigest is what the registry of the run holds under a name, "" if nothing.
func registryDigest(t *testing.T, repository, tag string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "https://"+registryHost()+"/v2/"+repository+"/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(registryUser, registryPassword)
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	// Whose certificate it has is the hosts' business.
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.Header.Get("Docker-Content-Digest")
}

// TestDockerBuildPush: build --push sends all names to their registry with the
// user's login, and whoever has one can build on what is there, in any namespace.
func TestDockerBuildPush(t *testing.T) {
	host := needRegistry(t)
	t.Parallel()
	ns, other := namespace(t), namespace(t)
	ann, stranger := newPerson(t), newPerson(t)
	if r := ann.login(t, registryPassword); r.code != 0 {
		t.Fatal(r.err)
	}
	dir := source(t, map[string]string{"Dockerfile": busyboxDockerfile + "RUN echo pushed > /from\n"})
	name := host + "/" + ns + "/built"
	ann.fails(t, []string{"build", "-n", ns, "--push", dir}, "--push needs a name")
	stranger.fails(t, []string{"build", "-n", ns, "--push", "-t", name, dir}, "wants credentials")
	if got := registryDigest(t, ns+"/built", "latest"); got != "" {
		t.Errorf("without a login %s was pushed", got)
	}
	r := ann.try(t, "", "build", "-n", ns, "-q", "--push", "-t", name, "-t", name+":v1", dir)
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	digest := strings.TrimSpace(r.out)
	for _, tag := range []string{"latest", "v1"} {
		if got := registryDigest(t, ns+"/built", tag); got != digest || digest == "" {
			t.Errorf("the registry has %q as %s, want %q", got, tag, digest)
		}
	}
	// In another namespace the name is the registry's.
	on := source(t, map[string]string{"Dockerfile": "FROM " + name + ":v1\nRUN grep pushed /from\n"})
	build := []string{"build", "-n", other, "-t", "on-it", on}
	stranger.fails(t, build, name+":v1", "wants credentials")
	ann.run(t, append(build, "--pull")...)
	ann.fails(t, []string{"build", "-n", other, "-t", "on-it", source(t, map[string]string{"Dockerfile": "FROM " + name + ":v2\n"})}, "no such image or tag")
	stranger.fails(t, append(build, "--pull", "--no-cache"), name+":v1", "wants credentials")

	// What the cluster builds by itself has the login of the namespace's pods.
	create(t, other, imageManifest("itself", fmt.Sprintf(`inline: "FROM %s:v1\nRUN grep pushed /from\n"`, name)))
	if refused := builtCondition(t, other, "itself", v1alpha1.ReasonBaseUnavailable); !strings.Contains(refused.Message, "--pull-secret") {
		t.Errorf("without a login: %s", refused.Message)
	}
	if r := ann.login(t, registryPassword, "-n", other, "--pull-secret=private"); r.code != 0 {
		t.Fatal(r.err)
	}
	builtCondition(t, other, "itself", v1alpha1.ReasonBuildSucceeded)
}
