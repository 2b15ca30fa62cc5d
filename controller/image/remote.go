package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"lighter.dev/lighter/api/v1alpha1"
)

// askPatience is how long a repository may take to say what it has.
const askPatience = 10 * time.Second

// RemoteCommit asks a repository which commit its ref names, for Config.Commit.
func RemoteCommit(ctx context.Context, source *v1alpha1.GitSource) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	ref := source.Ref
	if ref == "" {
		ref = "HEAD"
	}
	cmd := exec.CommandContext(ctx, "git", "ls-remote", "--", source.URL, ref, ref+"^{}")
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=https:http:git", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "LC_ALL=C")
	cmd.WaitDelay = time.Second // its helpers hold the pipes
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", errors.New("this server has no git: install it")
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s does not answer: %w", source.URL, ctx.Err())
	case errors.As(err, &exit):
		return "", fmt.Errorf("ask %s: %s", source.URL, strings.TrimSpace(string(exit.Stderr)))
	case err != nil:
		return "", fmt.Errorf("ask %s: %w", source.URL, err)
	}
	commit := commitOf(string(out), ref)
	if commit == "" {
		return "", fmt.Errorf("%s has no branch or tag %s", source.URL, ref)
	}
	return commit, nil
}

// commitOf finds a ref in the output of git ls-remote. A branch goes before a tag of
// the same name; a tag that is an object of its own means the commit that it is of.
func commitOf(output, ref string) string {
	found := map[string]string{}
	for line := range strings.Lines(output) {
		if commit, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			found[name] = commit
		}
	}
	for _, name := range []string{"refs/heads/" + ref, "refs/tags/" + ref + "^{}", "refs/tags/" + ref, ref + "^{}", ref} {
		if commit := found[name]; commit != "" {
			return commit
		}
	}
	return ""
}
