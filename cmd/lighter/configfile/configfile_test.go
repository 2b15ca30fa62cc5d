package configfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// settings are one flag of each kind that Lighter's commands use.
type settings struct {
	server  string
	port    int
	noAgent bool
	timeout time.Duration
	labels  []string
}

func command(got *settings) *cobra.Command {
	cmd := &cobra.Command{Use: "agent", SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) error { return nil }}
	cmd.Flags().StringVar(&got.server, "server", "https://default:6443", "")
	cmd.Flags().IntVar(&got.port, "port", 6443, "")
	cmd.Flags().BoolVar(&got.noAgent, "no-agent", false, "")
	cmd.Flags().DurationVar(&got.timeout, "timeout", time.Minute, "")
	cmd.Flags().StringSliceVar(&got.labels, "label", nil, "")
	return cmd
}

func TestBind(t *testing.T) {
	tests := []struct {
		name, file string
		args       []string
		want       string // text that the error has to contain
		check      func(settings) bool
	}{
		{name: "empty file", check: func(s settings) bool { return s.port == 6443 && s.server == "https://default:6443" }},
		{name: "every kind", file: "server: https://a:1\nport: 7\nno-agent: true\ntimeout: 3s\nlabel: [a=b, c=d]\n", check: func(s settings) bool {
			return s.server == "https://a:1" && s.port == 7 && s.noAgent && s.timeout == 3*time.Second && len(s.labels) == 2
		}},
		{name: "one value for a list", file: "label: a=b", check: func(s settings) bool { return len(s.labels) == 1 && s.labels[0] == "a=b" }},
		{name: "flag only", args: []string{"--port=8"}, check: func(s settings) bool { return s.port == 8 }},
		{name: "file and flag about different keys", file: "port: 7", args: []string{"--server=x"}, check: func(s settings) bool { return s.port == 7 && s.server == "x" }},
		{name: "both say the same", file: "port: 7\nlabel: [a, b]\ntimeout: 60s", args: []string{"--port=7", "--label=a,b", "--timeout=1m"}, check: func(s settings) bool {
			return s.port == 7 && len(s.labels) == 2 && s.timeout == time.Minute
		}},
		{name: "clash", file: "port: 7", args: []string{"--port=8"}, want: `key "port": clashes with the flag --port: the file says "7", the command line "8"`},
		{name: "clash with a flag that repeats the default", file: "port: 7", args: []string{"--port=6443"}, want: "clashes"},
		{name: "clash of lists", file: "label: [a]", args: []string{"--label=a,b"}, want: "clashes"},
		{name: "unknown key", file: "prot: 7", want: `key "prot": unknown key`},
		{name: "almost a key", file: "noAgent: true", want: `did you mean "no-agent"?`},
		{name: "all errors at once", file: "prot: 7\nport: x", want: `key "prot"`},
		{name: "wrong type", file: "port: many", want: `key "port": "many" is no int`},
		{name: "wrong duration", file: "timeout: 3", want: `key "timeout"`},
		{name: "list for one value", file: "port: [1]", want: "takes one value"},
		{name: "map", file: "server: {a: b}", want: "must be text"},
		{name: "no value", file: "server:", want: "has no value"},
		{name: "key twice", file: "port: 1\nport: 2", want: `key "port" already set`},
		{name: "config inside config", file: "config: /x", want: `key "config": unknown key`},
		{name: "no YAML", file: "{", want: "yaml"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "agent.yaml")
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			var got settings
			cmd := command(&got)
			Bind(cmd, path)
			cmd.SetArgs(test.args)
			err := cmd.Execute()
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
					t.Fatalf("error %v, want one with %q and the file's name", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !test.check(got) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	var got settings
	cmd := command(&got)
	Bind(cmd, missing)
	cmd.SetArgs(nil)
	if err := cmd.Execute(); err != nil {
		t.Errorf("a missing default file: %v", err)
	}
	cmd = command(&got)
	Bind(cmd, "/etc/lighter/agent.yaml")
	cmd.SetArgs([]string{"--config=" + missing})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing file that --config names: %v", err)
	}
}

// TestNothingHalfApplied: a file with one error changes no flag.
func TestNothingHalfApplied(t *testing.T) {
	var got settings
	cmd := command(&got)
	if err := Apply(cmd.Flags(), "f", []byte("server: https://a:1\nport: x\n")); err == nil {
		t.Fatal("no error")
	}
	if got.server != "https://default:6443" || cmd.Flags().Changed("server") {
		t.Errorf("server is %q", got.server)
	}
}
