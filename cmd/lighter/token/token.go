// Package token manages the Secrets behind join tokens: Kubernetes' bootstrap
// tokens in kube-system. Their form for people is package api/jointoken's.
package token

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"lighter.dev/lighter/api/jointoken"
)

const (
	secretPrefix = "bootstrap-token-"
	// agents is what a joining agent is a member of before it has a certificate,
	// servers what a host is that wants to become a server.
	agents  = "system:bootstrappers:lighter"
	servers = "system:bootstrappers:lighter-servers"
)

// Options describe a new token.
type Options struct {
	// TTL is how long it can be used; 0 means for ever.
	TTL         time.Duration
	Description string
	// Server makes a token that lets a host become a server, and no agent.
	Server bool
}

// Token is one join token as "lighter token list" shows it: without its secret.
type Token struct {
	ID          string
	Expires     time.Time // zero: never
	Description string
	Server      bool
}

// Create makes a token for the cluster with that CA and returns its full text,
// the only time it is shown.
func Create(ctx context.Context, client kubernetes.Interface, caPEM []byte, options Options) (string, error) {
	token, err := jointoken.New(caPEM, random(6)+"."+random(16))
	if err != nil {
		return "", fmt.Errorf("create join token: %w", err)
	}
	group := agents
	if options.Server {
		group = servers
	}
	data := map[string][]byte{
		"token-id": []byte(token.ID), "token-secret": []byte(token.Secret),
		"usage-bootstrap-authentication": []byte("true"),
		"auth-extra-groups":              []byte(group),
	}
	if options.TTL > 0 {
		data["expiration"] = []byte(time.Now().Add(options.TTL).UTC().Format(time.RFC3339))
	}
	if options.Description != "" {
		data["description"] = []byte(options.Description)
	}
	_, err = client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secretPrefix + token.ID},
		Type:       corev1.SecretTypeBootstrapToken,
		Data:       data,
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("create join token: %w", err)
	}
	return token.String(), nil
}

// List returns the tokens, oldest expiry first, those without an expiry last.
func List(ctx context.Context, client kubernetes.Interface) ([]Token, error) {
	secrets, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	tokens := make([]Token, 0, len(secrets.Items))
	for _, secret := range secrets.Items {
		expires, _ := time.Parse(time.RFC3339, string(secret.Data["expiration"]))
		tokens = append(tokens, Token{
			ID: string(secret.Data["token-id"]), Expires: expires, Description: string(secret.Data["description"]),
			Server: string(secret.Data["auth-extra-groups"]) == servers,
		})
	}
	slices.SortFunc(tokens, func(a, b Token) int {
		if a.Expires.IsZero() != b.Expires.IsZero() {
			if a.Expires.IsZero() {
				return 1
			}
			return -1
		}
		return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.ID, b.ID))
	})
	return tokens, nil
}

// tokenID finds the id in a whole token, in <id>.<secret> or in the id alone.
var tokenID = regexp.MustCompile(`^(?:LT1[0-9a-f]{64}::)?([a-z0-9]{6})(?:\.[a-z0-9]{16})?$`)

// Delete removes the token with that id; the whole token will do as well.
func Delete(ctx context.Context, client kubernetes.Interface, token string) error {
	match := tokenID.FindStringSubmatch(token)
	if match == nil {
		return fmt.Errorf("%q is not a token id: 6 of a-z and 0-9, as 'lighter token list' shows them", token)
	}
	err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, secretPrefix+match[1], metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("no token %s: 'lighter token list' shows what there is", match[1])
	}
	return err
}

// CA is the CA certificate that config trusts, as PEM.
func CA(config *rest.Config) ([]byte, error) {
	loaded := rest.CopyConfig(config)
	if err := rest.LoadTLSFiles(loaded); err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	if len(loaded.CAData) == 0 {
		return nil, errors.New("the kubeconfig holds no CA certificate, which a join token has to name")
	}
	return loaded.CAData, nil
}

// random makes a string of n characters of a-z and 0-9. 252 is the largest
// multiple of 36 in a byte: more would make some characters likelier.
func random(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	text := make([]byte, 0, n)
	for len(text) < n {
		var b [1]byte
		_, _ = rand.Read(b[:]) // never fails, see crypto/rand
		if b[0] < 252 {
			text = append(text, alphabet[int(b[0])%len(alphabet)])
		}
	}
	return string(text)
}
