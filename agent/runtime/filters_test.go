package runtime

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func profile(allowed ...string) *specs.Spec {
	return &specs.Spec{Linux: &specs.Linux{Seccomp: &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog},
		Syscalls: []specs.LinuxSyscall{{Names: allowed, Action: specs.ActAllow}},
	}}}
}

func apply(t *testing.T, f *filters, s *specs.Spec) (profileKey, bool) {
	t.Helper()
	key, ok, err := f.apply(s)
	if err != nil {
		t.Fatal(err)
	}
	return key, ok
}

func TestFilters(t *testing.T) {
	var f filters
	if _, ok := apply(t, &f, &specs.Spec{Linux: &specs.Linux{}}); ok {
		t.Error("a container without profile has one")
	}
	first := profile("read", "write")
	key, _ := apply(t, &f, first)
	if len(first.Linux.Seccomp.Syscalls) == 0 || len(first.Annotations) != 0 {
		t.Fatal("a profile that nobody has compiled was replaced")
	}

	dir := t.TempDir()
	f.learn(key, dir) // no filter there
	second := profile("read", "write")
	if apply(t, &f, second); len(second.Annotations) != 0 {
		t.Fatal("a filter came from nowhere")
	}
	for content, want := range map[string]bool{"": false, "cut off": false, "8 bytes.": true} {
		if err := os.WriteFile(filepath.Join(dir, filterFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f = filters{}
		f.learn(key, dir)
		if got := len(f.bpf) == 1; got != want {
			t.Errorf("learnt %q: %v, want %v", content, got, want)
		}
		if !want {
			continue
		}
		third := profile("read", "write")
		apply(t, &f, third)
		if got := third.Annotations[filterAnnotation]; got != base64.StdEncoding.EncodeToString([]byte(content)) {
			t.Errorf("the annotation is %q", got)
		}
		if left := third.Linux.Seccomp; left == nil || left.DefaultAction != specs.ActErrno || len(left.Syscalls) != 0 || len(left.Flags) != 1 {
			t.Errorf("what is left of the profile: %+v, want one that forbids everything", left)
		}
		other := profile("read")
		if apply(t, &f, other); len(other.Annotations) != 0 {
			t.Error("another profile got the filter")
		}
	}
}

func TestFiltersAreBounded(t *testing.T) {
	var f filters
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, filterFile), make([]byte, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxFilters {
		f.learn(profileKey{byte(i)}, dir)
	}
	if len(f.bpf) != maxFilters {
		t.Errorf("%d filters are kept, want %d", len(f.bpf), maxFilters)
	}
}

func TestTakesFilters(t *testing.T) {
	for text, want := range map[string]bool{
		"crun version 1.8.1\ncommit: x":    true,
		"crun version 0.18\n":              true,
		"crun version 0.17\nspec: 1.0.0":   false,
		"crun version UNKNOWN":             false,
		"runc version 1.1.5+ds1\nspec: 1.": false,
	} {
		if got := takesFilters([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
