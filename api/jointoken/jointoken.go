// Package jointoken is the form of the secret with which a host joins a cluster:
//
//	LT1<SHA-256 of the CA certificate, hex>::<id>.<secret>
//
// The hash lets the host trust a server it has never seen; <id>.<secret> is a
// Kubernetes bootstrap token (6 and 16 characters), which lets the server trust
// the host for long enough to sign its certificate.
package jointoken

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
)

// ErrMalformed says that a text is not a join token.
var ErrMalformed = errors.New("not a join token: want LT1<64 hex digits>::<6 characters>.<16 characters>, as 'lighter token create' prints it")

var (
	form      = regexp.MustCompile(`^LT1([0-9a-f]{64})::([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrap = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
)

// Token is a parsed join token.
type Token struct {
	// CAHash is the SHA-256 of the CA certificate in DER form, in hex.
	CAHash string
	// ID is public, Secret is not.
	ID, Secret string
}

// Parse reads the form of the package comment. Errors are ErrMalformed; they
// never repeat the text, which may be a mistyped secret.
func Parse(text string) (Token, error) {
	m := form.FindStringSubmatch(text)
	if m == nil {
		return Token{}, ErrMalformed
	}
	return Token{CAHash: m[1], ID: m[2], Secret: m[3]}, nil
}

// New combines a bootstrap token <id>.<secret> with the CA it belongs to.
func New(caPEM []byte, bearer string) (Token, error) {
	hash, err := Hash(caPEM)
	if err != nil {
		return Token{}, err
	}
	m := bootstrap.FindStringSubmatch(bearer)
	if m == nil {
		return Token{}, errors.New("not a bootstrap token: want <6 characters>.<16 characters>")
	}
	return Token{CAHash: hash, ID: m[1], Secret: m[2]}, nil
}

// String is the whole token, secret included.
func (t Token) String() string { return "LT1" + t.CAHash + "::" + t.Bearer() }

// Bearer is the part that authenticates to the API server.
func (t Token) Bearer() string { return t.ID + "." + t.Secret }

// Verify checks that the first certificate in caPEM is the CA that the token was
// made for. It says nothing about what follows: trust none of that.
func (t Token) Verify(caPEM []byte) error {
	hash, err := Hash(caPEM)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(hash), []byte(t.CAHash)) != 1 {
		return fmt.Errorf("the server's CA has hash %s, the token is for %s: it is another cluster's server, or somebody between you and it", hash, t.CAHash)
	}
	return nil
}

// Hash is the SHA-256 of the first certificate in caPEM, in hex.
func Hash(caPEM []byte) (string, error) {
	block, _ := pem.Decode(caPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", errors.New("no PEM certificate found")
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return "", fmt.Errorf("parse CA certificate: %w", err)
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}
