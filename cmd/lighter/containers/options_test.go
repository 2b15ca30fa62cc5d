package containers

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"lighter.dev/lighter/api/v1alpha1"
)

func ptr[T any](v T) *T { return &v }

// TestPod: what flags become, as the lines that the pod's manifest then has.
func TestPod(t *testing.T) {
	t.Setenv("HERE", "from here")
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("# a comment\n\nFILE=1\nBOTH=file\nHERE\nNOWHERE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		o     Options
		want  []string
		never []string
	}{
		{
			"plain", Options{Command: []string{"echo", "hi"}},
			[]string{"image: box", "args:\n    - echo\n    - hi", "imagePullPolicy: IfNotPresent", "restartPolicy: Always", "terminationGracePeriodSeconds: 10", "automountServiceAccountToken: false", "key: node.kubernetes.io/unreachable"},
			[]string{"tolerationSeconds", "command:", "stdin", "tty", "ports:", "hostNetwork"},
		},
		{"ports", Options{Publish: []string{"8080:80", "127.0.0.1:53:53/udp", "[::1]:1:2", "0.0.0.0:3:4"}}, []string{
			"containerPort: 80\n      hostPort: 8080\n      protocol: TCP", "containerPort: 53\n      hostIP: 127.0.0.1\n      hostPort: 53\n      protocol: UDP",
			"containerPort: 2\n      hostIP: ::1\n      hostPort: 1", "containerPort: 4\n      hostPort: 3",
		}, []string{"0.0.0.0"}},
		{"environment", Options{EnvFile: []string{file}, Env: []string{"BOTH=flag", "A=b=$(c)", "UNSET_THERE"}}, []string{
			`- name: FILE` + "\n" + `      value: "1"`, "- name: BOTH\n      value: flag", "- name: HERE\n      value: from here", "- name: A\n      value: b=$$(c)",
		}, []string{"NOWHERE", "UNSET_THERE", "value: file"}},
		{"entrypoint", Options{Entrypoint: ptr("/bin/sh"), Command: []string{"-c", "true"}}, []string{"command:\n    - /bin/sh", "args:\n    - -c\n    - \"true\""}, nil},
		{"no entrypoint", Options{Entrypoint: ptr(""), Command: []string{"true"}}, []string{"command:\n    - \"true\""}, []string{"args:"}},
		{"limits", Options{Memory: "64m", CPUs: "1.5"}, []string{"memory: 64Mi", "cpu: 1500m"}, nil},
		{"security", Options{User: "1:2", ReadOnly: true, CapAdd: []string{"net_admin"}, CapDrop: []string{"CAP_CHOWN", "ALL"}}, []string{
			"runAsUser: 1", "runAsGroup: 2", "readOnlyRootFilesystem: true", "add:\n        - NET_ADMIN", "drop:\n        - CHOWN\n        - ALL",
		}, []string{"privileged"}},
		{"privileged", Options{Privileged: true}, []string{"privileged: true"}, nil},
		{"host network", Options{Network: "host"}, []string{"hostNetwork: true"}, nil},
		{"no network", Options{Network: "none"}, []string{"lighter.dev/network: none"}, []string{"hostNetwork"}},
		{"volumes", Options{Node: "host-2", Volume: []string{"/etc/x:/y:ro", "data:/d/"}}, []string{
			"path: /etc/x", "mountPath: /y\n      name: volume-0\n      readOnly: true", "path: /var/lib/lighter/named-volumes/shop/data", "mountPath: /d\n", "kubernetes.io/hostname: host-2",
		}, nil},
		{"rest", Options{Name: "box-1", Hostname: "h", Workdir: "/w", Label: []string{"a=b", "c"}, Pull: "never"}, []string{
			"name: box-1\n", "hostname: h", "workingDir: /w", "a: b", `c: ""`, "imagePullPolicy: Never",
		}, nil},
		{"terminal", Options{Stdin: true, TTY: true}, []string{"stdin: true", "tty: true"}, []string{"stdinOnce"}},
		{"piped", Options{Stdin: true}, []string{"stdin: true", "stdinOnce: true"}, []string{"tty"}},
		{"detached with input", Options{Stdin: true, Detach: true}, []string{"stdin: true"}, []string{"stdinOnce", `\"attach\"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Image = "box"
			pod, err := tt.o.Pod("shop")
			if err != nil {
				t.Fatal(err)
			}
			raw, err := yaml.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(raw), want) {
					t.Errorf("no %q in\n%s", want, raw)
				}
			}
			for _, never := range tt.never {
				if strings.Contains(string(raw), never) {
					t.Errorf("%q in\n%s", never, raw)
				}
			}
			var run v1alpha1.RunRequest
			if err := json.Unmarshal([]byte(pod.Annotations[v1alpha1.RunAnnotation]), &run); err != nil || run.Number != 1 || run.Attach == tt.o.Detach || run.Stopped {
				t.Errorf("request %+v, %v", run, err)
			}
		})
	}
}

// TestRefused: mistakes are found before anything is made, and say what is wanted.
func TestRefused(t *testing.T) {
	for want, o := range map[string]Options{
		"no port of the host":       {Publish: []string{"80"}},
		"is no port":                {Publish: []string{"8000-8010:80"}},
		"unknown protocol":          {Publish: []string{"1:2/icmp"}},
		"no meaning with":           {Publish: []string{"1:2"}, Network: "host"},
		"want bridge, host or none": {Network: "macvlan"},
		"host's name":               {Network: "host", Hostname: "h"},
		"--node":                    {Volume: []string{"data:/d"}},
		"has to be absolute, as":    {Volume: []string{"./data:/d"}},
		"absolute and not /":        {Volume: []string{"/data:d"}},
		"unknown option":            {Volume: []string{"/data:/d:rx"}},
		"no source and target":      {Volume: []string{"/data"}},
		"k, m or g":                 {Memory: "much"},
		"such as 1.5":               {CPUs: "all"},
		"known to the image alone":  {User: "www-data"},
		"want no, on-failure[:MAX]": {Restart: "sometimes"},
		"goes with on-failure":      {Restart: "always:3"},
		"contradict":                {Restart: "always", Remove: true},
		"want missing, always or":   {Pull: "sometimes"},
		"an init as its entrypoint": {Init: true},
		"want KEY=VALUE or KEY":     {Env: []string{"=x"}},
		"want KEY[=VALUE]":          {Label: []string{"=x"}},
		"no such file or directory": {EnvFile: []string{"/nosuch/file"}},
	} {
		o.Image = "box"
		if _, err := o.Pod("shop"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	if _, err := (Options{}).Pod("shop"); err == nil {
		t.Error("no image, no error")
	}
}

func TestRestart(t *testing.T) {
	for text, want := range map[string]v1alpha1.ContainerPolicy{
		"": {Restart: "no"}, "no": {Restart: "no"}, "always": {Restart: "always"}, "unless-stopped": {Restart: "unless-stopped"},
		"on-failure": {Restart: "on-failure"}, "on-failure:3": {Restart: "on-failure", MaxRetries: 3},
	} {
		if got, err := parseRestart(text, false); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if got, err := parseRestart("no", true); err != nil || !got.Remove {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMadeUpNames(t *testing.T) {
	o := Options{Image: "box", Name: madeUp()}
	if pod, err := o.Pod("shop"); err != nil || !strings.Contains(pod.Name, "-") || pod.Spec.Containers[0].Name != mainContainer {
		t.Errorf("%v, %v", pod, err)
	}
}
