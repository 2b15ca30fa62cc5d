package token

import (
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/jointoken"
	"lighter.dev/lighter/controller/pki"
)

func TestLife(t *testing.T) {
	ca, err := pki.OpenCA(t.TempDir(), "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset()
	full, err := Create(t.Context(), client, ca.PEM, Options{TTL: time.Hour, Description: "for a test"})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jointoken.Parse(full)
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Verify(ca.PEM); err != nil {
		t.Error(err)
	}
	if _, err := Create(t.Context(), client, ca.PEM, Options{Server: true}); err != nil {
		t.Fatal(err)
	}
	tokens, err := List(t.Context(), client)
	if err != nil || len(tokens) != 2 {
		t.Fatalf("%v, %v", tokens, err)
	}
	if tokens[0].Server || !tokens[1].Server {
		t.Errorf("which of them are for servers: %v", tokens)
	}
	for _, form := range []string{full, tokens[1].ID} {
		if err := Delete(t.Context(), client, form); err != nil {
			t.Errorf("delete %q: %v", form, err)
		}
	}
	if err := Delete(t.Context(), client, "zzzzzz"); err == nil || !strings.Contains(err.Error(), "no token zzzzzz") {
		t.Errorf("deleting what is not there: %v", err)
	}
	if err := Delete(t.Context(), client, "../x"); err == nil {
		t.Error("a wrong id was accepted")
	}
}

func TestNoCA(t *testing.T) {
	if _, err := CA(&rest.Config{}); err == nil {
		t.Error("a CA out of nothing")
	}
}
