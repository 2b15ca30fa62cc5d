package fence

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const golden = "../deps.txt"

// TestDependencies compares the modules that our code imports with the list that
// people have agreed to.
func TestDependencies(t *testing.T) {
	content, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	agreed := map[string]bool{}
	var order []string
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, _ := strings.Cut(line, " ")
		if strings.TrimSpace(reason) == "" {
			t.Errorf("hack/deps.txt: %s has no reason", name)
		}
		agreed[name] = true
		order = append(order, name)
	}
	if !slices.IsSorted(order) {
		t.Error("hack/deps.txt is not sorted")
	}
	used := map[string]string{}
	modules := moduleOf(t)
	for _, pkg := range packages(t) {
		for _, path := range pkg.Imports {
			if name := modules[path]; name != "" && name != module {
				used[name] = pkg.path()
			}
		}
	}
	for name, user := range used {
		if !agreed[name] {
			t.Errorf("new dependency %s (imported by %s): do without it, or add it to hack/deps.txt with the reason", name, user)
		}
	}
	for name := range agreed {
		if used[name] == "" {
			t.Errorf("hack/deps.txt: %s is not imported any more: remove the line", name)
		}
	}
}
