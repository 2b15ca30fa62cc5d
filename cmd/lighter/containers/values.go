package containers

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
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

// parseResources reads --memory and --memory-reservation ("512m", binary units as
// Docker's) and --cpus ("1.5").
func parseResources(memory, reserved, cpus string) (corev1.ResourceRequirements, error) {
	out := corev1.ResourceRequirements{Limits: corev1.ResourceList{}, Requests: corev1.ResourceList{}}
	for _, m := range []struct {
		flag, text string
		to         corev1.ResourceList
	}{{"--memory", memory, out.Limits}, {"--memory-reservation", reserved, out.Requests}} {
		if m.text == "" {
			continue
		}
		bytes, err := units.RAMInBytes(m.text)
		if err != nil || bytes <= 0 {
			return out, fmt.Errorf("%s %s: want a number and b, k, m or g", m.flag, m.text)
		}
		m.to[corev1.ResourceMemory] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	if cpus != "" {
		n, err := strconv.ParseFloat(cpus, 64)
		if err != nil || n < 0.001 || n > 1e6 {
			return out, fmt.Errorf("--cpus %s: want a number such as 1.5", cpus)
		}
		out.Limits[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(n*1000+0.5), resource.DecimalSI)
	}
	return out, nil
}

// environment: what is given later holds, and flags before files.
func (o Options) environment() ([]corev1.EnvVar, error) {
	var all []string
	for _, path := range o.EnvFile {
		lines, err := readEnvFile(path)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	var out []corev1.EnvVar
	for _, text := range slices.Concat(all, o.Env) {
		v, given, err := parseEnv(text, os.LookupEnv)
		if err != nil {
			return nil, err
		}
		if !given {
			continue
		}
		out = slices.DeleteFunc(out, func(have corev1.EnvVar) bool { return have.Name == v.Name })
		out = append(out, v)
	}
	return out, nil
}

func labels(all []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range all {
		key, value, _ := strings.Cut(text, "=")
		if key == "" {
			return nil, fmt.Errorf("--label %q: want KEY[=VALUE]", text)
		}
		out[key] = value
	}
	return out, nil
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
