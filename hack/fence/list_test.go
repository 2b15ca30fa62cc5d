package fence

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const module = "lighter.dev/lighter"

// listed is what "go list -json" says about a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Module     *struct{ Path string }
}

func (l listed) path() string { return ours(l.ImportPath) }

var list = sync.OnceValues(func() ([]listed, error) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=ImportPath,Dir,GoFiles,Imports,Module", "./...")
	cmd.Dir = "../.."
	output, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []listed
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var one listed
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
})

// packages are ours, without the tools in hack.
func packages(t *testing.T) []listed {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var own []listed
	for _, pkg := range all {
		if pkg.Module != nil && pkg.Module.Path == module && !strings.HasPrefix(pkg.path(), "hack/") {
			own = append(own, pkg)
		}
	}
	if len(own) < 10 {
		t.Fatalf("found only %d packages", len(own))
	}
	return own
}

// moduleOf maps each import path to its module.
func moduleOf(t *testing.T) map[string]string {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	modules := map[string]string{}
	for _, pkg := range all {
		if pkg.Module != nil {
			modules[pkg.ImportPath] = pkg.Module.Path
		}
	}
	return modules
}
