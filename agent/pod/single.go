package pod

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

// Single is what a pod of "lighter run" wants beside its spec: Docker's life of
// a container (hack/decisions/0011-containers-as-docker-users-know-them.md). It
// rules the main containers of such a pod in place of spec.restartPolicy, which
// is Always there, so that the API allows a way back from "terminated".
type Single struct {
	Policy v1alpha1.ContainerPolicy
	Run    v1alpha1.RunRequest
}

// errOwned: a controller would replace the pod as soon as it is stopped.
var errOwned = errors.New("it belongs to a controller, which decides what runs")

// singleOf reads the annotations. It returns nil for a pod that has none, and
// for one on which they cannot hold, with the reason.
func singleOf(pod *corev1.Pod) (*Single, error) {
	policy, err := v1alpha1.ParseContainerPolicy(pod.Annotations)
	if policy == nil && err == nil {
		return nil, nil
	}
	ignore := func(annotation string, err error) error {
		return fmt.Errorf("annotation %s is ignored: %w", annotation, err)
	}
	switch {
	case err != nil:
		return nil, ignore(v1alpha1.ContainerAnnotation, err)
	case metav1.GetControllerOf(pod) != nil:
		return nil, ignore(v1alpha1.ContainerAnnotation, errOwned)
	case pod.Spec.RestartPolicy != corev1.RestartPolicyAlways:
		return nil, ignore(v1alpha1.ContainerAnnotation, fmt.Errorf("spec.restartPolicy is %s: has to be Always", pod.Spec.RestartPolicy))
	}
	s := &Single{Policy: *policy}
	text, marked := pod.Annotations[v1alpha1.RunAnnotation]
	if !marked {
		return s, nil
	}
	var run v1alpha1.RunRequest
	if err := json.Unmarshal([]byte(text), &run); err != nil {
		// What runs runs on, what ended stays so.
		return s, ignore(v1alpha1.RunAnnotation, err)
	}
	s.Run = run
	return s, nil
}

// single is what rules the container, nil if its spec does.
func (v View) single(c *Container) *Single {
	if c.Role != Main {
		return nil
	}
	return v.Single
}

// fresh: the request came after the newest attempt was started.
func (s *Single) fresh(c *Container) bool {
	return c.Current == nil || s.Run.Number > c.Current.Spec.Request
}

// stopped: somebody stopped the container by hand, and nobody started it since.
func (s *Single) stopped(c *Container) bool {
	return s.Run.Stopped && s.fresh(c) && (c.Revived == 0 || c.Revived != s.Run.Number)
}

// wants: it should run, by the newest request, then by the restart policy.
func (s *Single) wants(c *Container) bool {
	switch {
	case s.stopped(c):
		return false
	case s.fresh(c), c.Recreate:
		return true
	case !c.exited():
		return false
	}
	switch s.Policy.Restart {
	case v1alpha1.RestartAlways, v1alpha1.RestartUnlessStopped:
		return true
	case v1alpha1.RestartOnFailure:
		return c.Current.exitCode() != 0 && (s.Policy.MaxRetries == 0 || c.Current.Spec.Retries < s.Policy.MaxRetries)
	}
	return false
}

// interrupt stops a running container on a request that came after its start:
// to stop it, or to start it anew.
func (s *Single) interrupt(pod *corev1.Pod, c *Container) (Action, bool) {
	if !s.fresh(c) || c.Stop != nil && c.Stop.Request >= s.Run.Number {
		return Action{}, false
	}
	return Action{
		Do: StopIt, Container: c, Reason: requested, Message: "Stopping container " + c.Spec.Name + " as asked for",
		Grace: s.grace(pod), Signal: s.Run.Signal,
	}, true
}

// requested is the reason of a stop that a RunRequest asks for.
const requested = "Requested"

// grace is how long a stop on request may take: for ever if it is negative, as
// with Docker.
func (s *Single) grace(pod *corev1.Pod) time.Duration {
	if s.Run.GraceSeconds == nil {
		return gracePeriod(View{Pod: pod})
	}
	seconds := *s.Run.GraceSeconds
	if seconds < 0 || seconds > math.MaxInt32 {
		seconds = math.MaxInt32
	}
	return time.Duration(seconds) * time.Second
}

// revive lets a container that was stopped by hand start with its agent, as
// Docker's policy "always" does. It is called when the agent adopts it.
func (s *Single) revive(c *Container) {
	if s.Policy.Restart == v1alpha1.RestartAlways && s.stopped(c) && c.exited() {
		c.Revived = s.Run.Number
	}
}

// expire deletes the pod of a container that ended, if it was to go then.
func expire(v View, s *State, now time.Time) (Action, bool) {
	if v.Single == nil || !v.Single.Policy.Remove || s.Expire.Done || anythingMoves(s) {
		return Action{}, false
	}
	for _, c := range s.Containers {
		if c.Role == Main && (!c.exited() || v.Single.wants(c)) {
			return Action{}, false
		}
	}
	a := next(&s.Expire, Expire, now)
	return a, a.Do == Expire
}

// imageConfig is what the container takes from its image, and from the policy in
// its place.
func (s *Single) imageConfig(config ocispec.ImageConfig) ocispec.ImageConfig {
	config.User = cmp.Or(s.Policy.User, config.User)
	config.StopSignal = cmp.Or(s.Policy.StopSignal, config.StopSignal)
	return config
}

// rlimits are the policy's, in OCI's words.
func (s *Single) rlimits() []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	for _, u := range s.Policy.Ulimits {
		out = append(out, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return out
}

// succession is what the next attempt at a container takes over from the one
// before.
type succession struct {
	request int64
	retries int
	// snapshot and logPath are "" if it has its own.
	snapshot, logPath string
	// previous is the attempt that has the snapshot mounted.
	previous string
	// attach: it waits for a client before it starts.
	attach bool
}

// succeed is the next attempt's inheritance: the file system, unless the image
// was changed, and the log, so that it shows the container's whole life.
func (s *Single) succeed(c *Container) succession {
	out := succession{request: s.Run.Number, attach: s.Run.Attach && s.fresh(c)}
	if c.Current == nil {
		return out
	}
	last := &c.Current.Spec
	if last.Request == s.Run.Number {
		out.retries = last.Retries + 1
	}
	out.logPath = last.LogPath
	if last.ImageRef == c.Spec.Image {
		out.snapshot, out.previous = last.RootFSKey(), last.ID
	}
	return out
}
