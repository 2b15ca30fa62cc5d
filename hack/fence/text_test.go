package fence

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rule forbids text in Go files; except names the places where it is right.
type rule struct {
	pattern *regexp.Regexp
	except  []string
	reason  string
}

var rules = []rule{
	// Written apart, so that this file obeys itself.
	{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`), nil, "finish it, or say in the package's comment what is not there"},
	{regexp.MustCompile(`\btime\.Sleep\(`), nil, "wait for the event itself, or for a timer together with the context"},
	{regexp.MustCompile(`\blog\.(Fatal|Panic)`), nil, "return the error: only main ends the program"},
	{regexp.MustCompile(`\bos\.Exit\(`), []string{"cmd/lighter"}, "return the error: only main ends the program"},
	{regexp.MustCompile(`/root/|/home/[a-z]`), nil, "no path of somebody's machine belongs into the tree"},
}

// generated is the mark of go generate's convention (go help generate).
var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func TestText(t *testing.T) {
	for _, pkg := range packages(t) {
		if strings.HasSuffix(pkg.path(), "test") {
			continue // helps tests, which may poll
		}
		for _, name := range pkg.GoFiles {
			content, err := os.ReadFile(filepath.Join(pkg.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if !generated.Match(content) {
				checkText(t, pkg.path(), name, string(content))
			}
		}
	}
}

func checkText(t *testing.T, pkg, name, content string) {
	t.Helper()
	for number, line := range strings.Split(content, "\n") {
		for _, rule := range rules {
			if excepted(pkg, rule.except) || !rule.pattern.MatchString(line) {
				continue
			}
			t.Errorf("%s/%s:%d: %s: %s", pkg, name, number+1, strings.TrimSpace(line), rule.reason)
		}
	}
}

func excepted(pkg string, except []string) bool {
	for _, place := range except {
		if pkg == place {
			return true
		}
	}
	return false
}
