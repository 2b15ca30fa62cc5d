package build

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/api/v1alpha1"
)

const (
	// statusWait is how long a client waits for its Image's status to be
	// written. The build is done by then; writing goes on behind its back.
	statusWait = 10 * time.Second
	// maxMessage bounds a condition's message (the API allows 32 KiB), maxEvent
	// an Event's.
	maxMessage = 16 << 10
	maxEvent   = 1000
)

// report tells the API how one build goes. It is the only writer of the
// Image's status while the build runs.
type report struct {
	b     *Builder
	entry entry
}

// begin notes in the journal and in the status that a build, or other work on the
// Image's content, runs.
func (b *Builder) begin(ctx context.Context, img *v1alpha1.Image, what Work) (*report, error) {
	e := newEntry(img, what)
	if err := b.journal.put(e); err != nil {
		return nil, fmt.Errorf("note the %s: %w", what.words().noun, err)
	}
	err := b.writeStatus(ctx, e, func(img *v1alpha1.Image) {
		// controller/image reads the host's name out of these words.
		setBuilding(img, e.Generation, metav1.ConditionTrue, v1alpha1.ReasonBuildStarted, buildsIt(b.cfg.NodeName))
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write status of image %s: %w", e.key(), err), b.journal.remove(e))
	}
	b.log.Info(what.words().noun+" started", "image", e.key(), "generation", e.Generation)
	b.cfg.Events.Event(img, corev1.EventTypeNormal, v1alpha1.ReasonBuildStarted, what.words().doing+" on host "+b.cfg.NodeName)
	return &report{b: b, entry: e}, nil
}

func (r *report) succeeded(res result) {
	w := r.entry.Work.words()
	r.end(outcome{Reason: w.reason, Message: w.done + " " + res.Digest, Result: res, At: metav1.Now()})
}

func (r *report) failed(reason, message string, cancelled bool) {
	o := outcome{Reason: reason, Message: cut(message, maxMessage), At: metav1.Now()}
	if cancelled {
		o.Reason = v1alpha1.ReasonBuildCancelled
		o.Message = "the " + r.entry.Work.words().noun + " was cancelled: its client or its host went away. " + r.entry.again()
	}
	r.end(o)
}

// end notes the outcome, then writes it. If the API does not answer, writing
// goes on until it does, over a restart of the agent if need be.
func (r *report) end(o outcome) {
	r.entry.Outcome = &o
	if err := r.b.journal.put(r.entry); err != nil {
		r.b.log.Error("outcome of build not noted", "image", r.entry.key(), "error", err)
	}
	r.b.log.Info(r.entry.Work.words().noun+" ended", "image", r.entry.key(), "reason", o.Reason, "digest", o.Result.Digest)
	written := r.b.settle(r.entry)
	wait := time.NewTimer(statusWait)
	defer wait.Stop()
	select {
	case <-written:
	case <-wait.C:
		r.b.log.Warn("the API does not take the outcome of a build, will go on trying", "image", r.entry.key())
	}
}

// settle writes the outcome of a build to its Image until it is written or the
// Image is gone, then forgets the build. A build without an outcome was cut
// off by the end of its agent.
func (b *Builder) settle(e entry) <-chan struct{} {
	if e.Outcome == nil {
		message := "the " + e.Work.words().noun + " was cut off: its agent ended. " + e.again()
		e.Outcome = &outcome{Reason: v1alpha1.ReasonBuildCancelled, Message: message, At: metav1.Now()}
	}
	done := make(chan struct{})
	b.wg.Go(func() {
		defer close(done)
		// Close lets one last try finish, which takes statusWait at most.
		ctx := context.WithoutCancel(b.run)
		for wait := 100 * time.Millisecond; ; wait = min(2*wait, 30*time.Second) {
			err := b.writeOutcome(ctx, e)
			if err == nil || apierrors.IsNotFound(err) {
				if err := b.journal.remove(e); err != nil {
					b.log.Error("journal of builds not cleaned", "image", e.key(), "error", err)
				}
				return
			}
			b.log.Debug("outcome of build not written yet", "image", e.key(), "error", err)
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-b.run.Done():
				t.Stop()
				return // the journal keeps it for the next run
			}
		}
	})
	return done
}

func (b *Builder) writeOutcome(ctx context.Context, e entry) error {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	var last *v1alpha1.Image
	err := b.writeStatus(ctx, e, func(img *v1alpha1.Image) {
		if last = nil; superseded(img, e, b.cfg.NodeName) {
			return
		}
		applyOutcome(img, e, b.cfg.NodeName)
		last = img
	})
	if err != nil {
		return err
	}
	if last == nil {
		return nil
	}
	kind := corev1.EventTypeNormal
	if !e.Outcome.succeeded() {
		kind = corev1.EventTypeWarning
	}
	b.cfg.Events.Event(last, kind, e.Outcome.Reason, cut(e.Outcome.Message, maxEvent))
	return nil
}

// writeStatus changes the status of the Image that e is about, again after
// each conflict. An Image that was deleted and made anew is not touched.
func (b *Builder) writeStatus(ctx context.Context, e entry, change func(*v1alpha1.Image)) error {
	for {
		img, err := b.cfg.Images.Get(ctx, e.Namespace, e.Name)
		if err != nil {
			return err
		}
		if img.UID != e.UID {
			return apierrors.NewNotFound(v1alpha1.Resource("images"), e.Name)
		}
		img = img.DeepCopy()
		change(img)
		if _, err = b.cfg.Images.UpdateStatus(ctx, img); !apierrors.IsConflict(err) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// buildsIt is the message of Building while a host builds.
func buildsIt(node string) string { return "host " + node + " builds it" }

// superseded tells whether another host has taken over a build that was cut off,
// while this one was away: what became of it there is news, the cut is not. Pure.
func superseded(img *v1alpha1.Image, e entry, node string) bool {
	building := meta.FindStatusCondition(img.Status.Conditions, v1alpha1.ImageBuilding)
	if building == nil || e.Outcome.Reason != v1alpha1.ReasonBuildCancelled {
		return false
	}
	if building.Status == metav1.ConditionTrue {
		return building.Message != buildsIt(node)
	}
	// The control plane writes the same when it misses the builder.
	return building.Reason != v1alpha1.ReasonBuildCancelled
}

// applyOutcome is how a build's end shows in the status. Pure.
func applyOutcome(img *v1alpha1.Image, e entry, node string) {
	o := e.Outcome
	built := metav1.Condition{Type: v1alpha1.ImageBuilt, Status: metav1.ConditionFalse, ObservedGeneration: e.Generation, Reason: o.Reason, Message: o.Message}
	if o.succeeded() {
		built.Status = metav1.ConditionTrue
		img.Status.Digest = o.Result.Digest
		img.Status.Size = o.Result.Size
		img.Status.NodeName = node
		img.Status.BuiltAt = o.At.DeepCopy()
		img.Status.ObservedGeneration = e.Generation
	}
	setBuilding(img, e.Generation, metav1.ConditionFalse, o.Reason, "")
	meta.SetStatusCondition(&img.Status.Conditions, built)
}

func setBuilding(img *v1alpha1.Image, generation int64, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&img.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ImageBuilding, Status: status, ObservedGeneration: generation, Reason: reason, Message: message,
	})
}

// cut keeps the end of a long text, where a build's error is, and makes it
// valid UTF-8: a step may print anything, the API takes only that.
func cut(text string, limit int) string {
	const mark, bad = "…\n", "\uFFFD"
	if len(text) > limit {
		text = mark + text[len(text)-limit+len(mark):]
	}
	return strings.ToValidUTF8(text, bad)
}
