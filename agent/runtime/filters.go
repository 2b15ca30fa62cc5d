package runtime

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	// filterAnnotation makes crun load a seccomp filter as it is (crun(1),
	// run.oci.seccomp_bpf_data) instead of compiling the profile.
	filterAnnotation = "run.oci.seccomp_bpf_data"
	// filterFile is where crun leaves the filter that it has compiled, in a
	// container's state folder.
	filterFile = "seccomp.bpf"
	// maxFilters bounds the memory: some 10 KiB each. A host rarely has more than
	// a handful of profiles.
	maxFilters = 64
)

// filters remembers compiled seccomp filters. Compiling the default profile
// takes 12 ms of CPU, a third of what crun needs for a container, and always
// gives the same result: so the first container of each profile has it compiled,
// and those that follow get the filter.
type filters struct {
	mu  sync.Mutex
	bpf map[profileKey]string // base64
}

// profileKey is a hash of a profile as the OCI spec has it.
type profileKey [sha256.Size]byte

// apply replaces the profile in s by its compiled form, if that is known. It
// returns the profile's key for learn; ok is false if s has no profile.
func (f *filters) apply(s *specs.Spec) (key profileKey, ok bool, err error) {
	if s.Linux == nil || s.Linux.Seccomp == nil {
		return key, false, nil
	}
	raw, err := json.Marshal(s.Linux.Seccomp)
	if err != nil {
		return key, false, fmt.Errorf("seccomp profile: %w", err)
	}
	key = sha256.Sum256(raw)
	f.mu.Lock()
	compiled, known := f.bpf[key]
	f.mu.Unlock()
	if !known {
		return key, true, nil
	}
	// What is left of the profile forbids everything: should the runtime not heed
	// the annotation, the container fails instead of running unconfined.
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, Architectures: s.Linux.Seccomp.Architectures, Flags: s.Linux.Seccomp.Flags,
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[filterAnnotation] = compiled
	return key, true, nil
}

// learn takes over the filter of a container that crun has just created. That
// there is none is no error: the next container is compiled as well.
func (f *filters) learn(key profileKey, stateDir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.bpf[key]; known || len(f.bpf) >= maxFilters {
		return
	}
	raw, err := os.ReadFile(filepath.Join(stateDir, filterFile))
	// struct sock_filter is 8 bytes long (linux/filter.h).
	if err != nil || len(raw) == 0 || len(raw)%8 != 0 {
		return
	}
	if f.bpf == nil {
		f.bpf = map[profileKey]string{}
	}
	f.bpf[key] = base64.StdEncoding.EncodeToString(raw)
}

// takesFilters tells whether a crun knows filterAnnotation (from 0.18 on).
// version is what "crun --version" prints.
func takesFilters(version []byte) bool {
	var major, minor int
	first, _, _ := bytes.Cut(version, []byte("\n"))
	if _, err := fmt.Sscanf(string(first), "crun version %d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 0 || minor >= 18
}
