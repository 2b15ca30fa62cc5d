// Package attachtest is the contract suite of attach.Driver.
package attachtest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"lighter.dev/lighter/overlay/attach"
)

// Env is what the suite needs of a driver under test.
type Env struct {
	Driver attach.Driver
	// NewNetNS makes an empty namespace and returns its path; remove ends it.
	NewNetNS func(t *testing.T) (path string, remove func())
	// Leftovers describes all state of the driver (links, rules, leases): equal
	// before an Attach and after its Detach.
	Leftovers func(t *testing.T) string
	// Stateless drivers have nothing that Keep or a lost namespace could end.
	Stateless bool
}

// Suite runs the contract. newEnv makes a fresh driver.
func Suite(t *testing.T, newEnv func(t *testing.T) Env) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, e Env)
	}{
		{"attach is idempotent", testIdempotent}, {"detach without attach", testDetachNothing},
		{"detach when the namespace is gone", testNamespaceGone}, {"attach where no namespace is", testNoNamespace},
		{"status", testStatus}, {"keep", testKeep}, {"many pods", testMany},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			before := e.Leftovers(t)
			c.run(t, e)
			if after := e.Leftovers(t); after != before {
				t.Errorf("left over:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
}

func (e Env) sandbox(t *testing.T, uid string) (attach.Sandbox, func()) {
	t.Helper()
	path, remove := e.NewNetNS(t)
	return attach.Sandbox{PodUID: uid, PodNamespace: "default", PodName: "pod-" + uid, NetNS: path}, remove
}

func (e Env) attach(t *testing.T, s attach.Sandbox) attach.Result {
	t.Helper()
	r, err := e.Driver.Attach(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (e Env) detach(t *testing.T, s attach.Sandbox) {
	t.Helper()
	if err := e.Driver.Detach(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

func testIdempotent(t *testing.T, e Env) {
	s, _ := e.sandbox(t, "a")
	first := e.attach(t, s)
	for range 2 {
		if again := e.attach(t, s); !slices.Equal(again.IPs, first.IPs) {
			t.Fatalf("%v, then %v", first, again)
		}
	}
	e.detach(t, s)
	e.detach(t, s)
}

func testDetachNothing(t *testing.T, e Env) {
	s, _ := e.sandbox(t, "never-attached")
	e.detach(t, s)
	e.detach(t, attach.Sandbox{PodUID: "unheard-of"})
}

func testNamespaceGone(t *testing.T, e Env) {
	s, remove := e.sandbox(t, "a")
	e.attach(t, s)
	remove()
	if _, err := e.Driver.Status(t.Context(), s); !e.Stateless && !errors.Is(err, attach.ErrNotAttached) {
		t.Errorf("status: %v", err)
	}
	e.detach(t, attach.Sandbox{PodUID: s.PodUID})
}

func testNoNamespace(t *testing.T, e Env) {
	s, remove := e.sandbox(t, "a")
	remove()
	if _, err := e.Driver.Attach(t.Context(), s); err == nil && !e.Stateless {
		t.Error("attached to nothing")
	}
}

func testStatus(t *testing.T, e Env) {
	s, _ := e.sandbox(t, "a")
	if _, err := e.Driver.Status(t.Context(), s); !e.Stateless && !errors.Is(err, attach.ErrNotAttached) {
		t.Errorf("before: %v", err)
	}
	want := e.attach(t, s)
	got, err := e.Driver.Status(t.Context(), s)
	if err != nil || !slices.Equal(got.IPs, want.IPs) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
	e.detach(t, s)
	if _, err := e.Driver.Status(t.Context(), s); !e.Stateless && !errors.Is(err, attach.ErrNotAttached) {
		t.Errorf("after: %v", err)
	}
}

func testKeep(t *testing.T, e Env) {
	a, _ := e.sandbox(t, "a")
	b, _ := e.sandbox(t, "b")
	e.attach(t, a)
	e.attach(t, b)
	if err := e.Driver.Keep(t.Context(), []string{"b", "unheard-of"}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Driver.Status(t.Context(), a); !e.Stateless && !errors.Is(err, attach.ErrNotAttached) {
		t.Errorf("the pod that is gone: %v", err)
	}
	if _, err := e.Driver.Status(t.Context(), b); err != nil {
		t.Errorf("the pod to keep: %v", err)
	}
	if err := e.Driver.Keep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
}

func testMany(t *testing.T, e Env) {
	const pods = 20
	var all []attach.Sandbox
	for i := range pods {
		s, _ := e.sandbox(t, fmt.Sprint("pod", i))
		all = append(all, s)
	}
	results, errs := make(chan attach.Result, pods), make(chan error, pods)
	for _, s := range all {
		go func() {
			r, err := e.Driver.Attach(t.Context(), s)
			results <- r
			errs <- err
		}()
	}
	seen := map[string]bool{}
	for range all {
		if err := <-errs; err != nil {
			t.Error(err)
		}
		for _, ip := range (<-results).IPs {
			if !e.Stateless && seen[ip.String()] {
				t.Errorf("%s given out twice", ip)
			}
			seen[ip.String()] = true
		}
	}
	for _, s := range all {
		e.detach(t, s)
	}
}
