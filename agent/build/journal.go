package build

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"lighter.dev/lighter/api/v1alpha1"
)

// result is what a successful build made.
type result struct {
	Digest string
	// Size is the sum of the compressed layers, in bytes.
	Size int64
}

// outcome is how a build ended.
type outcome struct {
	// Reason is the condition's, one of v1alpha1.Reason….
	Reason  string
	Message string
	Result  result
	At      metav1.Time
}

func (o *outcome) succeeded() bool { return o.Result.Digest != "" }

// entry is the journal's record of one build, import or commit. It exists from before status
// says Building until status says how it ended, so that an agent that was
// killed in between knows what to set right.
type entry struct {
	Namespace, Name string
	UID             types.UID
	// Work is what is done, a build if empty.
	Work Work `json:",omitempty"`
	// ByCluster: nobody has to ask for the build again, controller/image does.
	ByCluster bool `json:",omitempty"`
	// Generation is the Image's metadata.generation that is built.
	Generation int64
	// Outcome is nil while the build runs.
	Outcome *outcome
}

func newEntry(img *v1alpha1.Image, what Work) entry {
	return entry{
		Namespace: img.Namespace, Name: img.Name, UID: img.UID, Work: what, Generation: img.Generation,
		ByCluster: what == building && img.Spec.Source.BuiltByCluster(),
	}
}

func (e entry) key() string { return e.Namespace + "/" + e.Name }

// again is what follows after it was cut off.
func (e entry) again() string {
	if e.ByCluster {
		return "The cluster builds it again by itself."
	}
	return e.Work.words().again
}

// journal keeps one file per Image that this host builds. It is written by the
// holder of the Image's turn only.
type journal struct{ dir string }

func openJournal(root string) (journal, error) {
	j := journal{filepath.Join(root, "running")}
	return j, os.MkdirAll(j.dir, 0o700)
}

func (j journal) path(e entry) string {
	// Neither part can contain "_": both are DNS labels or subdomains.
	return filepath.Join(j.dir, e.Namespace+"_"+e.Name+".json")
}

// put replaces the file in one step.
func (j journal) put(e entry) error {
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	tmp := j.path(e) + ".tmp"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, j.path(e))
}

func (j journal) remove(e entry) error {
	if err := os.Remove(j.path(e)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// list reads what the last run left.
func (j journal) list() ([]entry, error) {
	files, err := filepath.Glob(filepath.Join(j.dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var e entry
		if json.Unmarshal(raw, &e) != nil {
			// Cut off by a power loss: the Image is unknown, so nothing can be set right.
			if err := os.Remove(f); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, e)
	}
	return out, nil
}
