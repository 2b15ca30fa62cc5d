package images

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containerd/console"
)

// onTerminal types text at a terminal of the test's own.
func onTerminal(t *testing.T, text string) *os.File {
	t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	slave, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	if _, err := master.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return slave
}

func TestQuestions(t *testing.T) {
	logins, _ := loginsIn(t, "")
	var out strings.Builder
	options := LoginOptions{Registry: hub, In: onTerminal(t, "ann\n"), Err: &out}
	if name, err := options.askName(t.Context(), ""); err != nil || name != "ann" {
		t.Errorf("name %q, %v", name, err)
	}
	options.In = onTerminal(t, "\n")
	if name, err := options.askName(t.Context(), "bea"); err != nil || name != "bea" || !strings.Contains(out.String(), "Username (bea): ") {
		t.Errorf("name %q, %v", name, err)
	}
	options.In, options.Username = onTerminal(t, "secret\n"), "ann"
	if login, err := options.ask(t.Context(), logins); err != nil || login.Password != "secret" {
		t.Errorf("%+v, %v", login, err)
	}
	for text, want := range map[string]bool{"y\n": true, "Yes\n": true, "\n": false, "no\n": false} {
		d := newDesk(t, nil)
		d.In = onTerminal(t, text)
		if err := d.confirm(t.Context(), "?"); (err == nil) != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestInterrupt: Ctrl-C ends a question.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in := onTerminal(t, "")
	cancel()
	if _, err := readSecret(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
