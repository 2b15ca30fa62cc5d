package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"regexp"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
)

func TestLife(t *testing.T) {
	der := []byte("a certificate")
	config := &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}}
	client := fake.NewClientset()
	full, err := Create(t.Context(), config, client, Options{TTL: time.Hour, Description: "for a test"})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	if want := regexp.MustCompile("^LT1" + hex.EncodeToString(sum[:]) + `::[a-z0-9]{6}\.[a-z0-9]{16}$`); !want.MatchString(full) {
		t.Fatalf("token %q does not match %s", full, want)
	}
	if _, err := Create(t.Context(), config, client, Options{}); err != nil {
		t.Fatal(err)
	}
	tokens, err := List(t.Context(), client)
	if err != nil || len(tokens) != 2 {
		t.Fatalf("%v, %v", tokens, err)
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
	if _, err := CAHash(&rest.Config{}); err == nil {
		t.Error("a hash without a CA")
	}
}
