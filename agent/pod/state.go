package pod

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/agent/runtime"
)

// View is what is wanted.
type View struct {
	Pod *corev1.Pod
	// Single rules the main containers of a pod of "lighter run"; else nil.
	Single *Single
	// Gone: the API has no such pod (any more); there is nobody to report to.
	Gone bool
}

// Deleted tells whether the pod has to leave this node.
func (v View) Deleted() bool { return v.Gone || v.Pod.DeletionTimestamp != nil }

// Step is the progress of something that can fail and is tried again.
type Step struct {
	Done, Busy bool
	Err        error
	Failures   int
	RetryAt    time.Time
}

// due: it has to be started now.
func (s *Step) due(now time.Time) bool { return !s.Done && !s.Busy && !now.Before(s.RetryAt) }

// State is what the worker observed. Only the worker touches it.
type State struct {
	// Hooks is the progress of set-up, by hook name.
	Hooks map[string]*Step
	// VolumesDue is when the volumes hook wants to run again; zero is never.
	VolumesDue time.Time
	// Containers are in the order of the spec: init containers, then the rest.
	Containers []*Container
	// Failed ends the pod for a reason that no container gave.
	Failed *Failure
	// Ended: the worker has given up on set-up, so there is no way back to life.
	Ended bool
	// StartTime is when this node first saw the pod.
	StartTime time.Time
	// Release undoes the set-up of a pod that ended but is not deleted;
	// Teardown removes everything; Final deletes the pod from the API. Expire asks
	// the API to delete the pod of a container that was to go with its end.
	Release, Teardown, Final, Expire Step
}

// Failure is why a pod failed, in the words of pod.status.
type Failure struct{ Reason, Message string }

// Role is how a container takes part in the pod.
type Role int

// The roles. A Sidecar is an init container with restartPolicy Always.
const (
	Main Role = iota
	Init
	Sidecar
)

// Op is what is under way on a container.
type Op string

// The operations.
const (
	Idle     Op = ""
	Pulling  Op = "pull"
	Starting Op = "start"
)

// Container is one container of the spec and what became of it.
type Container struct {
	Spec *corev1.Container
	Role Role
	Op   Op

	// Image is the progress of making the image present; Has is the result.
	Image Step
	Has   image.Image

	// Current is the newest attempt, nil if none was made; Last the one before,
	// kept for lastState and "logs --previous".
	Current, Last *Attempt
	// Stale is a container that an earlier agent made but did not start. It has
	// to be deleted before the next attempt, which has the same ID.
	Stale *runtime.ContainerSpec
	// Held is an attempt that is made and waits for a client to attach.
	Held *runtime.ContainerSpec
	// Withdraw ends that wait; nil if there is none.
	Withdraw context.CancelFunc
	// Revived is the number of a stop request that the agent's start overrules.
	Revived int64
	// Start is the failure to even create an attempt (CreateContainerConfigError).
	Start Step
	// Backoff grows with every crash.
	Backoff Backoff

	// Started: the startup probe passed. Ready: the readiness probe says so.
	Started, Ready bool
	// Unhealthy, if set, is why the running attempt has to be replaced.
	Unhealthy string
	// Recreate: the attempt was stopped to be replaced, whatever the restart policy.
	Recreate bool
	// Stop is set while the running attempt is asked to end.
	Stop *Stop
}

// Attempt is one try at running a container.
type Attempt struct{ runtime.Status }

// Stop is a graceful stop under way.
type Stop struct {
	Deadline time.Time
	Killed   bool
	// Request is the number of the request for it, 0 if the agent decided.
	Request int64
}

// running: there is a process to stop.
func (c *Container) running() bool {
	return c.Current != nil && (c.Current.State == runtime.StateRunning || c.Current.State == runtime.StateCreated)
}

func (c *Container) exited() bool { return c.Current != nil && !c.running() }

// succeeded: it ran and ended well.
func (c *Container) succeeded() bool { return c.exited() && c.Current.exitCode() == 0 }

// exitUnknown (killed) stands for an end that nobody saw.
const exitUnknown = 137

// exitCode is that of an attempt that ended.
func (a *Attempt) exitCode() int {
	if a.State == runtime.StateUnknown {
		return exitUnknown
	}
	return a.ExitCode
}

// Verb is what to do.
type Verb string

// The actions. Wait is the only one that Next returns twice in a row.
const (
	Wait     Verb = "wait"
	Setup    Verb = "setup"    // run Hook
	Pull     Verb = "pull"     // make the image of Container present
	Run      Verb = "run"      // create and start Container
	StopIt   Verb = "stop"     // stop Container gracefully
	Kill     Verb = "kill"     // SIGKILL to Container
	Fail     Verb = "fail"     // end the pod for Reason
	Release  Verb = "release"  // undo set-up, keep the dead containers
	Teardown Verb = "teardown" // undo everything
	Expire   Verb = "expire"   // have the API delete the pod
	Finalize Verb = "finalize" // delete the pod from the API
	Done     Verb = "done"     // nothing is left to do, ever
)

// Action is the next thing to do.
type Action struct {
	Do        Verb
	Hook      string
	Container *Container
	// Reason and Message explain it to people.
	Reason, Message string
	// Grace is how long a stop may take, Signal what begins it ("" is the
	// container's own stop signal).
	Grace  time.Duration
	Signal string
	// Until is when Wait ends though nothing happens; zero is never.
	Until time.Time
}
