package jointoken

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

func newCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestThereAndBack(t *testing.T) {
	ca := newCA(t)
	made, err := New(ca, "abcdef.0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := Parse(made.String())
	if err != nil || parsed != made {
		t.Errorf("%+v became %+v, %v", made, parsed, err)
	}
	if parsed.Bearer() != "abcdef.0123456789abcdef" || parsed.ID != "abcdef" {
		t.Errorf("bearer %s, id %s", parsed.Bearer(), parsed.ID)
	}
	if err := parsed.Verify(ca); err != nil {
		t.Error(err)
	}
	other := newCA(t)
	for name, text := range map[string][]byte{"another CA": other, "the CA second": append(other, ca...), "nothing": nil, "no certificate": []byte("-----BEGIN X-----\n-----END X-----\n")} {
		if parsed.Verify(text) == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestMalformed(t *testing.T) {
	hash := strings.Repeat("0f", 32)
	const bearer = "abcdef.0123456789abcdef"
	for _, text := range []string{
		"", "LT1", bearer, "LT1" + hash, "LT1" + hash + "::", "LT1" + hash + ":" + bearer, "LT2" + hash + "::" + bearer,
		"LT1" + hash[1:] + "::" + bearer, "LT1" + strings.ToUpper(hash) + "::" + bearer, "LT1" + hash + "::abcdef0123456789abcdef",
		"LT1" + hash + "::" + bearer + "\n", " LT1" + hash + "::" + bearer, "LT1" + hash + "::ABCDEF.0123456789abcdef",
	} {
		_, err := Parse(text)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", text, err)
		} else if strings.Contains(err.Error(), "0123456789") {
			t.Errorf("the error repeats the text: %s", err)
		}
	}
	if _, err := Parse("LT1" + hash + "::" + bearer); err != nil {
		t.Error(err)
	}
	for _, text := range []string{"", "abcdef", "abcdef.short", bearer + "x"} {
		if _, err := New(newCA(t), text); err == nil {
			t.Errorf("bearer %q is accepted", text)
		}
	}
}
