package containers

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"lighter.dev/lighter/api/v1alpha1"
)

func ptr[T any](v T) *T { return &v }

func network(o NetworkOptions) Options   { return Options{Network: o} }
func security(o SecurityOptions) Options { return Options{Security: o} }
func volumes(v string) Options           { return Options{Storage: StorageOptions{Volumes: []string{v}}} }

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
		{"ports", network(NetworkOptions{Publish: []string{"8080:80", "127.0.0.1:53:53/udp", "[::1]:1:2", "0.0.0.0:3:4", "8000-8002:80-82"}}), []string{
			"containerPort: 80\n      hostPort: 8080\n      protocol: TCP", "containerPort: 53\n      hostIP: 127.0.0.1\n      hostPort: 53\n      protocol: UDP",
			"containerPort: 2\n      hostIP: ::1\n      hostPort: 1", "containerPort: 4\n      hostPort: 3", "containerPort: 82\n      hostPort: 8002",
		}, []string{"0.0.0.0"}},
		{"environment", Options{EnvFile: []string{file}, Env: []string{"BOTH=flag", "A=b=$(c)", "UNSET_THERE"}}, []string{
			`- name: FILE` + "\n" + `      value: "1"`, "- name: BOTH\n      value: flag", "- name: HERE\n      value: from here", "- name: A\n      value: b=$$(c)",
		}, []string{"NOWHERE", "UNSET_THERE", "value: file"}},
		{"entrypoint", Options{Entrypoint: ptr("/bin/sh"), Command: []string{"-c", "true"}}, []string{"command:\n    - /bin/sh", "args:\n    - -c\n    - \"true\""}, nil},
		{"no entrypoint", Options{Entrypoint: ptr(""), Command: []string{"true"}}, []string{"command:\n    - \"true\""}, []string{"args:"}},
		{"limits", Options{Memory: "64m", CPUs: "1.5"}, []string{"memory: 64Mi", "cpu: 1500m"}, nil},
		{"security", security(SecurityOptions{User: "1:2", Groups: []string{"3", "staff"}, ReadOnly: true, CapAdd: []string{"net_admin"}, CapDrop: []string{"CAP_CHOWN", "ALL"}}), []string{
			"runAsUser: 1", "runAsGroup: 2", "readOnlyRootFilesystem: true", "add:\n        - NET_ADMIN", "drop:\n        - CHOWN\n        - ALL",
			"supplementalGroups:\n    - 3", `"groups":["staff"]`,
		}, []string{"privileged", `"user"`}},
		{"names of the image", security(SecurityOptions{User: "app:3"}), []string{`"user":"app:3"`}, []string{"runAs"}},
		{"number and name", security(SecurityOptions{User: "3:staff"}), []string{`"user":"3:staff"`}, []string{"runAs"}},
		{"fences", security(SecurityOptions{Options: []string{"seccomp=unconfined", "no-new-privileges"}, Sysctls: []string{"net.core.somaxconn=9"}, Ulimits: []string{"nofile=10:20", "core=-1"}, PID: "host", IPC: "host"}), []string{
			"type: Unconfined", "allowPrivilegeEscalation: false", "name: net.core.somaxconn\n      value: \"9\"", "hostPID: true", "hostIPC: true",
			`"ulimits":[{"name":"nofile","soft":10,"hard":20},{"name":"core","soft":-1,"hard":-1}]`,
		}, nil},
		{"privileged", security(SecurityOptions{Privileged: true}), []string{"privileged: true"}, nil},
		{"host network", network(NetworkOptions{Kind: "host"}), []string{"hostNetwork: true"}, nil},
		{"no network", network(NetworkOptions{Kind: "none"}), []string{"lighter.dev/network: none"}, []string{"hostNetwork"}},
		{"volumes", Options{Node: "host-2", Storage: StorageOptions{Volumes: []string{"/etc/x:/y:ro", "data:/d/", "/own"}}}, []string{
			"path: /etc/x", "mountPath: /y\n      name: volume-0\n      readOnly: true", "path: /var/lib/lighter/named-volumes/shop/data", "mountPath: /d\n", "kubernetes.io/hostname: host-2", "mountPath: /own\n      name: volume-2", "emptyDir: {}",
			`volumes.lighter.dev/data: ""`, "- key: volumes.lighter.dev/data\n            operator: Exists\n        topologyKey: kubernetes.io/hostname",
		}, []string{"Memory"}},
		{"mounts", Options{Storage: StorageOptions{
			Mounts: []string{"type=bind,src=/etc/x,dst=/y,readonly", "type=tmpfs,target=/t,tmpfs-size=1m", "target=/own"}, Tmpfs: []string{"/u:rw,size=2m", "/v"}, ShmSize: "3m",
		}}, []string{
			"path: /etc/x", "mountPath: /y\n      name: volume-0\n      readOnly: true", "mountPath: /t\n", "mountPath: /own\n", "mountPath: /u\n", "mountPath: /v\n", "mountPath: /dev/shm\n",
			"medium: Memory\n      sizeLimit: 1Mi", "medium: Memory\n      sizeLimit: 2Mi", "medium: Memory\n      sizeLimit: 3Mi",
		}, nil},
		{"rest", Options{
			Name: "box-1", Workdir: "/w", Label: []string{"a=b", "c"}, Pull: "never", Platform: "linux/arm64", StopSignal: "int", StopTimeout: ptr(int64(-1)), MemoryReservation: "1m",
			Network: NetworkOptions{Kind: "overlay", Hostname: "h", Hosts: []string{"db:10.0.0.1", "six=[::2]"}, DNSSearch: []string{"shop.example"}, DNSOptions: []string{"ndots:2"}},
		}, []string{
			"name: box-1\n", "hostname: h", "kubernetes.io/arch: arm64", "kubernetes.io/os: linux", `"stopSignal":"INT"`, "terminationGracePeriodSeconds: 2147483647", "requests:\n        memory: 1Mi",
			"hostnames:\n    - db\n    ip: 10.0.0.1", "hostnames:\n    - six\n    ip: ::2", "searches:\n    - shop.example", "name: ndots\n      value: \"2\"", "workingDir: /w", "a: b", `c: ""`, "imagePullPolicy: Never",
		}, []string{"dnsPolicy", "hostNetwork"}},
		{"name servers", network(NetworkOptions{DNS: []string{"10.0.0.2"}}), []string{"dnsPolicy: None", "nameservers:\n    - 10.0.0.2"}, nil},
		{"health", Options{Health: HealthOptions{Command: "test -f /ok", Interval: 1500 * time.Millisecond, StartPeriod: time.Minute}}, []string{
			"readinessProbe:", "- test -f /ok", "periodSeconds: 2", "initialDelaySeconds: 60", "timeoutSeconds: 30", "failureThreshold: 3",
		}, []string{"livenessProbe"}},
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
		`"0" is no port`:            network(NetworkOptions{Publish: []string{"0:80"}}),
		`"2-1" is no port`:          network(NetworkOptions{Publish: []string{"2-1:80"}}),
		"3 ports of the host for 2": network(NetworkOptions{Publish: []string{"1-3:5-6"}}),
		"one port of the host for":  network(NetworkOptions{Publish: []string{"1:5-6"}}),
		"unknown protocol":          network(NetworkOptions{Publish: []string{"1:2/icmp"}}),
		"no meaning with":           network(NetworkOptions{Publish: []string{"1:2"}, Kind: "host"}),
		"publish ports (-p)":        network(NetworkOptions{Kind: "macvlan"}),
		"on which all containers":   network(NetworkOptions{Kind: "mine"}),
		"host's name":               network(NetworkOptions{Kind: "host", Hostname: "h"}),
		"--add-host db":             network(NetworkOptions{Hosts: []string{"db"}}),
		"--dns: ParseAddr":          network(NetworkOptions{DNS: []string{"dns.example"}}),
		"has to be absolute, as":    volumes("./data:/d"),
		"absolute and not /":        volumes("/data:d"),
		"unknown option rx":         volumes("/data:/d:rx"),
		"too many parts":            volumes("/data:/d:ro:x"),
		"target is missing":         {Storage: StorageOptions{Mounts: []string{"type=bind,source=/x"}}},
		"unknown option volume-opt": {Storage: StorageOptions{Mounts: []string{"source=x,target=/x,volume-opt=y"}}},
		"type=tmpfs with target":    {Storage: StorageOptions{Mounts: []string{"type=npipe,source=x,target=/x"}}},
		"option noexec":             {Storage: StorageOptions{Tmpfs: []string{"/t:noexec"}}},
		"--shm-size much":           {Storage: StorageOptions{ShmSize: "much"}},
		"k, m or g":                 {Memory: "much"},
		"such as 1.5":               {CPUs: "all"},
		"want USER[:GROUP]":         security(SecurityOptions{User: "-1"}),
		"--ulimit files=1":          security(SecurityOptions{Ulimits: []string{"files=1"}}),
		"--sysctl x":                security(SecurityOptions{Sysctls: []string{"x"}}),
		"--security-opt label=x":    security(SecurityOptions{Options: []string{"label=x"}}),
		"--pid container:x":         security(SecurityOptions{PID: "container:x"}),
		"--platform":                {Platform: "a/b/c/d/e"},
		"--stop-signal":             {StopSignal: "NOSUCH"},
		"--health-cmd is missing":   {Health: HealthOptions{Retries: 1}},
		"--no-healthcheck contra":   {Health: HealthOptions{Command: "true", None: true}},
		"want no, on-failure[:MAX]": {Restart: "sometimes"},
		"goes with on-failure":      {Restart: "always:3"},
		"contradict":                {Restart: "always", Remove: true},
		"want missing, always or":   {Pull: "sometimes"},
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
		if got, err := parseRestart(text, false); err != nil || !reflect.DeepEqual(got, want) {
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
