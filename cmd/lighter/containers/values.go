package containers

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"lighter.dev/lighter/api/v1alpha1"
)

// parseRestart reads Docker's --restart.
func parseRestart(text string, remove bool) (v1alpha1.ContainerPolicy, error) {
	out := v1alpha1.ContainerPolicy{Remove: remove}
	name, count, counted := strings.Cut(text, ":")
	out.Restart = v1alpha1.RestartPolicy(name)
	switch out.Restart {
	case "":
		out.Restart = v1alpha1.RestartNo
	case v1alpha1.RestartNo, v1alpha1.RestartOnFailure, v1alpha1.RestartAlways, v1alpha1.RestartUnlessStopped:
	default:
		return out, fmt.Errorf("--restart %s: want no, on-failure[:MAX], always or unless-stopped", text)
	}
	if remove && out.Restart != v1alpha1.RestartNo {
		return out, fmt.Errorf("--rm and --restart %s contradict each other", text)
	}
	if !counted {
		return out, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || out.Restart != v1alpha1.RestartOnFailure {
		return out, fmt.Errorf("--restart %s: a number of retries goes with on-failure", text)
	}
	out.MaxRetries = n
	return out, nil
}

// parseLimits reads --memory ("512m", binary units as Docker's) and --cpus ("1.5").
func parseLimits(memory, cpus string) (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	if memory != "" {
		bytes, err := units.RAMInBytes(memory)
		if err != nil || bytes <= 0 {
			return nil, fmt.Errorf("--memory %s: want a number and b, k, m or g", memory)
		}
		out[corev1.ResourceMemory] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	if cpus != "" {
		n, err := strconv.ParseFloat(cpus, 64)
		if err != nil || n < 0.001 || n > 1e6 {
			return nil, fmt.Errorf("--cpus %s: want a number such as 1.5", cpus)
		}
		out[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(n*1000+0.5), resource.DecimalSI)
	}
	return out, nil
}

// parseUser reads --user: numbers, since the names are known to the image alone.
func parseUser(text string) (user, group *int64, err error) {
	if text == "" {
		return nil, nil, nil
	}
	uid, gid, both := strings.Cut(text, ":")
	number := func(text string) *int64 {
		n, parseErr := strconv.ParseInt(text, 10, 32)
		if parseErr != nil || n < 0 {
			err = fmt.Errorf("--user %s: want UID[:GID] as numbers: names are known to the image alone", uid)
		}
		return &n
	}
	user = number(uid)
	if both {
		group = number(gid)
	}
	return user, group, err
}

// parseEnv reads KEY=VALUE, and KEY with the caller's own value, if it has one.
func parseEnv(text string, lookup func(string) (string, bool)) (corev1.EnvVar, bool, error) {
	name, value, given := strings.Cut(text, "=")
	if name == "" {
		return corev1.EnvVar{}, false, fmt.Errorf("environment %q: want KEY=VALUE or KEY", text)
	}
	if !given {
		value, given = lookup(name)
	}
	// Kubernetes would expand $(NAME).
	return corev1.EnvVar{Name: name, Value: strings.ReplaceAll(value, "$(", "$$(")}, given, nil
}

// readEnvFile reads lines KEY=VALUE and KEY; empty ones and those with # are none.
func readEnvFile(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	defer file.Close()
	return envLines(file)
}

func envLines(r io.Reader) ([]string, error) {
	var out []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if line := strings.TrimLeft(lines.Text(), " \t"); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out, lines.Err()
}
