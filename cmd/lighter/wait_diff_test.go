package main

import "testing"

// TestSharedVerbs: whose verb a command line means.
func TestSharedVerbs(t *testing.T) {
	diff := []string{"-f", "--filename", "-k", "--kustomize"}
	for arg, want := range map[string]bool{
		"-f": true, "-ffile": true, "--filename=x": true, "--filename": true, "-k": true,
		"web": false, "--field-manager=x": false, "-n": false, "--force": false,
	} {
		if got := isFlag(arg, diff); got != want {
			t.Errorf("%s: %v", arg, got)
		}
	}
	if !isFlag("--for=delete", []string{"--for"}) || isFlag("--force", []string{"--for"}) {
		t.Error("--for")
	}
}
