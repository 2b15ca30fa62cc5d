package image

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

func TestMain(m *testing.M) {
	RouteLibraryLogs(slog.New(slog.DiscardHandler))
	if root := os.Getenv(childRoot); root != "" {
		pullAsChild(root, os.Getenv(childPulls))
	}
	os.Exit(m.Run())
}

func TestRouteLibraryLogs(t *testing.T) {
	var out bytes.Buffer
	RouteLibraryLogs(slog.New(slog.NewTextHandler(&out, nil)))
	defer RouteLibraryLogs(slog.New(slog.DiscardHandler))
	logrus.Info("chatter")
	logrus.Warn("chatter")
	logrus.WithField("blob", "x").Error("trouble")
	if got := out.String(); strings.Contains(got, "chatter") || !strings.Contains(got, "level=WARN msg=trouble blob=x") {
		t.Errorf("log: %s", got)
	}
}
