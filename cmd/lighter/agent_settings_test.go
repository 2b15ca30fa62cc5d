package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/cmd/lighter/configfile"
)

// parseAgent reads a command line of "lighter agent".
func parseAgent(t *testing.T, args ...string) *agentDaemonOptions {
	t.Helper()
	options := &agentDaemonOptions{}
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	options.addFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return options
}

func TestRegistries(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want map[string]image.Registry
	}{
		{"none", nil, map[string]image.Registry{}},
		{"mirrors in order", []string{"--registry-mirror=docker.io=https://b.example", "--registry-mirror=docker.io=https://a.example/hub"},
			map[string]image.Registry{"docker.io": {Mirrors: []string{"https://b.example", "https://a.example/hub"}}}},
		{"Docker Hub by its old name", []string{"--registry-mirror=index.docker.io=https://b.example"},
			map[string]image.Registry{"docker.io": {Mirrors: []string{"https://b.example"}}}},
		{"several hosts", []string{"--insecure-registry=10.0.0.1:5000,localhost", "--registry-ca=a.example=/ca.pem", "--registry-mirror=a.example=http://m:80"},
			map[string]image.Registry{"10.0.0.1:5000": {Insecure: true}, "localhost": {Insecure: true}, "a.example": {CAFile: "/ca.pem", Mirrors: []string{"http://m:80"}}}},
		{"the same file twice", []string{"--registry-ca=a.example=/ca.pem", "--registry-ca=a.example=/ca.pem"},
			map[string]image.Registry{"a.example": {CAFile: "/ca.pem"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseAgent(t, tt.args...).registries.registries()
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// TestWrongSettings: each wrong value is refused by the name of its flag.
func TestWrongSettings(t *testing.T) {
	tests := []struct {
		arg, want string
		more      []string
	}{
		{arg: "--default-registry=https://a.example", want: `--default-registry: "https://a.example": want a registry as image names spell it`},
		{arg: "--default-registry=mirror", want: "has neither a dot nor a port"},
		{arg: "--default-registry=a.example/team", want: "want a registry as image names spell it"},
		{arg: "--registry-mirror=docker.io", want: "--registry-mirror: \"docker.io\": want HOST=URL"},
		{arg: "--registry-mirror=docker.io=mirror.example", want: "want a URL such as https://mirror.example"},
		{arg: "--registry-mirror=docker.io=ftp://mirror.example", want: "want a URL"},
		{arg: "--registry-mirror=a.example=https://m", more: []string{"--registry-mirror=a.example=https://m"}, want: "https://m is given twice for a.example"},
		{arg: "--insecure-registry=http://a.example", want: "--insecure-registry:"},
		{arg: "--registry-ca=a.example", want: "--registry-ca: \"a.example\": want HOST=FILE"},
		{arg: "--registry-ca=a.example=/1", more: []string{"--registry-ca=a.example=/2"}, want: "two files for a.example, /2 and /1"},
		{arg: "--registry-ca=a.example=/1", more: []string{"--insecure-registry=a.example"}, want: "clashes with --insecure-registry a.example"},
		{arg: "--log-max-size=10 megabytes", want: `--log-max-size: "10 megabytes": want a size such as 10Mi`},
		{arg: "--log-max-size=0", want: "--log-max-size"},
		{arg: "--log-max-files=1", want: "--log-max-files: 1: want 2 or more"},
		{arg: "--image-gc-high=101", want: "--image-gc-high: 101 is no percentage"},
		{arg: "--image-gc-low=90", want: "--image-gc-low: 90 has to be less than --image-gc-high 85"},
		{arg: "--image-gc-max-age=-1h", want: "--image-gc-max-age"},
		{arg: "--storage-driver=zfs", want: `--storage-driver: "zfs": want one of overlayfs, native, btrfs`},
		{arg: "--runtimes=kata", want: `--runtimes: "kata": want NAME=PROGRAM`},
		{arg: "--runtimes=a_b=/bin/x", want: `--runtimes: "a_b=/bin/x"`},
		{arg: "--runtimes=a=/bin/x,a=/bin/y", want: "--runtimes: two programs for a, /bin/x and /bin/y"},
		{arg: "--node-name=A_B", want: "--node-name"},
		{arg: "--node-labels=a b=c", want: "--node-labels"},
		{arg: "--node-taints=a=b:Never", want: "--node-taints"},
	}
	var all []string
	for _, tt := range tests {
		t.Run(tt.arg, func(t *testing.T) {
			err := parseAgent(t, append(tt.more, tt.arg)...).agentOptions.check()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
		if tt.more == nil {
			all = append(all, tt.arg)
		}
	}
	err := parseAgent(t, all...).check()
	if err == nil {
		t.Fatal("no error")
	}
	for _, flag := range []string{"server", "default-registry", "registry-mirror", "insecure-registry", "registry-ca", "log-max-size", "log-max-files", "storage-driver", "node-name", "node-labels", "node-taints"} {
		if !strings.Contains(err.Error(), "--"+flag) {
			t.Errorf("all at once: --%s is missing in\n%v", flag, err)
		}
	}
	if code := codeOf(t.Context(), err); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
}

func TestSettingsFiles(t *testing.T) {
	missing, empty := filepath.Join(t.TempDir(), "none.pem"), filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{missing: "--registry-ca: open " + missing, empty: "holds no PEM certificate"} {
		options := parseAgent(t, "--registry-ca=a.example="+path)
		if err := options.agentOptions.check(); err != nil {
			t.Errorf("the values alone: %v", err)
		}
		if err := options.checkFiles(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// TestLocalSettings: what "lighter local up --config" refuses before it starts
// anything.
func TestLocalSettings(t *testing.T) {
	tests := []struct{ content, want string }{
		{"registry-mirror: [docker.io=https://m.example]\nmax-pods: 20\nlog-level: debug", ""},
		{"registry-mirrors: [docker.io=https://m.example]", `key "registry-mirrors": unknown key`},
		{"log-max-size: huge\nlog-max-files: 0", "--log-max-files"},
		{"log-level: loud\nstorage-driver: zfs", "--log-level"},
		{"max-pods: many", `key "max-pods"`},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readLocalSettings(path)
		switch {
		case tt.want == "":
			if err != nil || got["max-pods"] != 20.0 {
				t.Errorf("%q: %v, %v", tt.content, got, err)
			}
		case err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path):
			t.Errorf("%q: %v, want %q and the file's name", tt.content, err, tt.want)
		}
	}
	if _, err := readLocalSettings("/none.yaml"); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("a missing file: %v", err)
	}
}

// TestExampleSettings: all of the settings that the example file shows exist, and
// their values are right.
func TestExampleSettings(t *testing.T) {
	content, err := os.ReadFile("../../hack/systemd/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile(`(?m)^#([a-z])`).ReplaceAll(content, []byte("$1"))
	var options agentDaemonOptions
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	options.addFlags(flags)
	if err := configfile.Apply(flags, "agent.yaml", shown); err != nil {
		t.Fatal(err)
	}
	if err := options.agentOptions.check(); err != nil {
		t.Error(err)
	}
	if got := options.registries.mirrors; len(got) != 2 {
		t.Errorf("mirrors %v: was the example read?", got)
	}
}

// TestEverySettingIsTested: each setting of an agent stands in the files with which
// the end-to-end tests start hosts, and look what it does, or another test does that.
func TestEverySettingIsTested(t *testing.T) {
	elsewhere := map[string]string{ // by file
		"server": "e2e/join_test.go", "token": "e2e/join_test.go",
		"node-name": "e2e/local_test.go", "node-ip": "e2e/local_test.go", "cgroup-root": "e2e/local_test.go", // a local cluster sets them for each host
		"image-gc-max-age": "../../agent/image/reclaim/reclaimer_test.go",
	}
	var files string
	for _, path := range []string{"e2e/settings_test.go", "e2e/settings_host_test.go"} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files += string(content)
	}
	var options agentDaemonOptions
	flags := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	options.addFlags(flags)
	flags.VisitAll(func(flag *pflag.Flag) {
		if strings.Contains(files, "\n"+flag.Name+": ") {
			return
		}
		if _, err := os.Stat(elsewhere[flag.Name]); elsewhere[flag.Name] == "" || err != nil {
			t.Errorf("%s has no test: add it to e2e/settings_host_test.go", flag.Name)
		}
	})
}
