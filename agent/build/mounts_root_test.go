package build

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/agent"
)

// needle is a secret of 19 bytes that no Dockerfile repeats.
const needle = "unforgeable-needle!"

// TestMounts: every kind of RUN --mount.
func TestMounts(t *testing.T) {
	h := newHost(t)
	h.base()
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, needle)
	t.Setenv("LIGHTER_TEST_TOKEN", "psst")
	for _, test := range []struct{ name, run, fails string }{
		{"bind", "RUN --mount=type=bind,target=/here test $(cat /here/f) = x && ! touch /here/g 2>/dev/null", ""},
		{"bind and written to", "RUN --mount=type=bind,target=/here,rw touch /here/g\nRUN --mount=type=bind,target=/here test ! -e /here/g", ""},
		{"bind from a stage", "RUN --mount=type=bind,from=tools,target=/t test $(cat /t/tool) = tool", ""},
		{"cache in two steps", "RUN --mount=type=cache,id=c,target=/c echo 1 > /c/n\nRUN --mount=type=cache,id=c,target=/c test $(cat /c/n) = 1\nRUN test ! -e /c/n", ""},
		{"cache with an owner", "RUN --mount=type=cache,target=/o,uid=7,mode=0700 test $(busybox stat -c %u-%a /o) = 7-700", ""},
		{"tmpfs", "RUN --mount=type=tmpfs,target=/t touch /t/x && busybox mount | busybox grep -q 'tmpfs on /t '\nRUN test ! -e /t/x", ""},
		{"secret from a file", "RUN --mount=type=secret,id=token test $(busybox wc -c < /run/secrets/token) = 19\nRUN test ! -s /run/secrets/token", ""},
		{"secret elsewhere", "RUN --mount=type=secret,id=token,target=/s,mode=0440 test $(busybox wc -c < /s)-$(busybox stat -c %a /s) = 19-440", ""},
		{"secret in the environment", "RUN --mount=type=secret,id=variable,env=V test $V = psst", ""},
		{"secret that need not be", "RUN --mount=type=secret,id=other test ! -e /run/secrets/other", ""},
		{"secret that has to be", "RUN --mount=type=secret,id=other,required true", "secret other: not found"},
		{"ssh", "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK", ""},
		{"ssh that is not given", "RUN --mount=type=ssh,id=other,required true", "unset ssh forward key other"},
		{"unknown kind", "RUN --mount=type=magic true", "Dockerfile:"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.image("mounts", nil)
			cfg := h.client("mounts", folder(t, map[string]string{"Dockerfile": "FROM busybox AS tools\nRUN echo tool > /tool\nFROM busybox\n" + test.run + "\n", "f": "x"}), nil)
			cfg.Secrets = []string{"id=token,src=" + token, "id=variable,env=LIGHTER_TEST_TOKEN"}
			cfg.SSH = []string{"default=" + sshAgent(t)}
			_, err := buildPlain(t, cfg)
			if (err == nil) != (test.fails == "") || (err != nil && !strings.Contains(err.Error(), test.fails)) {
				t.Errorf("error %v, want %q", err, test.fails)
			}
		})
	}
	t.Run("a cache is there in the next build", func(t *testing.T) {
		h.image("again", nil)
		_, out, err := h.build(context.Background(), "again", folder(t, map[string]string{"Dockerfile": "FROM busybox\nRUN --mount=type=cache,id=c,target=/c test $(cat /c/n) = 1\n"}))
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("no secret is in the image", func(t *testing.T) {
		_ = filepath.WalkDir(filepath.Join(h.root, "images"), func(path string, d os.DirEntry, _ error) error {
			if d.Type().IsRegular() && d.Name() != "token" {
				if raw, err := os.ReadFile(path); err == nil && strings.Contains(string(raw), needle) {
					t.Errorf("%s holds it", path)
				}
			}
			return nil
		})
	})
}

// sshAgent answers on a socket as ssh-agent does, without keys.
func sshAgent(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	keys := agent.NewKeyring()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, conn) }()
		}
	}()
	return path
}
