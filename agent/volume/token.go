package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// defaultTokenSeconds is the API's default lifetime of a projected token.
	defaultTokenSeconds = 3600
	// maxTokenAge: a token that lives longer is renewed daily, as kubelet does.
	maxTokenAge = 24 * time.Hour
)

// tokenKey says which of a pod's tokens is meant.
type tokenKey struct {
	pod      types.UID
	account  string
	audience string
	seconds  int64
}

type heldToken struct {
	token   string
	renewAt time.Time
	expires time.Time
}

// tokenCache keeps each token until it is time to renew it, so that a refresh
// of a volume for another reason asks the API for nothing.
type tokenCache struct {
	request TokenFunc
	mu      sync.Mutex
	held    map[tokenKey]heldToken
}

// get returns a token and when to call again. An old token that has not
// expired is better than none while the API is away.
func (c *tokenCache) get(ctx context.Context, pod *corev1.Pod, src *corev1.ServiceAccountTokenProjection) (string, time.Time, error) {
	seconds := int64(defaultTokenSeconds)
	if src.ExpirationSeconds != nil {
		seconds = *src.ExpirationSeconds
	}
	key := tokenKey{pod.UID, pod.Spec.ServiceAccountName, src.Audience, seconds}
	c.mu.Lock()
	held, ok := c.held[key]
	c.mu.Unlock()
	now := time.Now()
	if ok && now.Before(held.renewAt) {
		return held.token, held.renewAt, nil
	}
	fresh, err := c.ask(ctx, pod, src.Audience, seconds)
	if err != nil {
		if ok && now.Before(held.expires) {
			return held.token, now.Add(time.Minute), nil
		}
		return "", time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	c.mu.Lock()
	c.held[key] = fresh
	c.mu.Unlock()
	return fresh.token, fresh.renewAt, nil
}

func (c *tokenCache) ask(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (heldToken, error) {
	if c.request == nil {
		return heldToken{}, errors.New("this agent has no access to the API server")
	}
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		// Bound to the pod: the API refuses the token when the pod is gone.
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		},
	}}
	if audience != "" {
		req.Spec.Audiences = []string{audience}
	}
	now := time.Now()
	answer, err := c.request(ctx, pod.Namespace, pod.Spec.ServiceAccountName, req)
	if err != nil {
		return heldToken{}, err
	}
	return heldToken{answer.Status.Token, renewal(now, answer.Status.ExpirationTimestamp), answer.Status.ExpirationTimestamp.Time}, nil
}

// renewal is at 80 % of the token's life, and some jitter so that all tokens of
// a host do not come due at once.
func renewal(now time.Time, expires metav1.Time) time.Time {
	age := min(expires.Sub(now)*8/10, maxTokenAge)
	if age <= 0 {
		return now.Add(time.Second)
	}
	return now.Add(age - time.Duration(rand.Int64N(int64(age)/20+1)))
}

// drop forgets the tokens of a pod.
func (c *tokenCache) drop(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.held {
		if key.pod == uid {
			delete(c.held, key)
		}
	}
}

// tokenMode is readable only by its owner unless an fsGroup shares it.
const tokenMode fs.FileMode = 0o600

func (m *Manager) addToken(ctx context.Context, pod *corev1.Pod, src *corev1.ServiceAccountTokenProjection, mode fs.FileMode, out payload) (time.Time, error) {
	token, next, err := m.tokens.get(ctx, pod, src)
	if err != nil {
		return time.Time{}, err
	}
	f := file{[]byte(token), mode, -1}
	if uid := commonUser(pod); uid != nil {
		f.mode, f.uid = tokenMode, int(*uid)
	} else if fsGroup(pod) != nil {
		f.mode = tokenMode
	}
	out[src.Path] = f
	return next, nil
}

// commonUser is the user that all containers run as, if the pod says so; the
// token then belongs to it alone.
func commonUser(pod *corev1.Pod) *int64 {
	var fallback *int64
	if pod.Spec.SecurityContext != nil {
		fallback = pod.Spec.SecurityContext.RunAsUser
	}
	var common *int64
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		user := fallback
		if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
			user = c.SecurityContext.RunAsUser
		}
		if user == nil || common != nil && *common != *user {
			return nil
		}
		common = user
	}
	return common
}
