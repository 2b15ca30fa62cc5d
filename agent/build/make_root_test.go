package build

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"lighter.dev/lighter/agent/image"
	"lighter.dev/lighter/api/v1alpha1"
)

// childWork, in the environment beside childRoot, makes the agent to be killed
// import that archive instead of waiting for a build.
const childWork = "LIGHTER_TEST_BUILDER_IMPORTS"

// importForEver writes an image and never comes back.
func importForEver(b *Builder, archive string) {
	_, err := b.Make(context.Background(), "default", "doomed", Import, func(ctx context.Context) (ocispec.Descriptor, error) {
		file, err := os.Open(archive)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		defer file.Close()
		target, err := b.cfg.Store.ImportContent(ctx, file, "", image.Edit{})
		fmt.Println("written", err)
		<-ctx.Done()
		return target, err
	})
	fmt.Println("ended", err)
}

// TestMake: an import becomes the content of an Image under all of its tags, with
// status and events; one that fails leaves the old content and says so.
func TestMake(t *testing.T) {
	h := newHost(t)
	ctx := context.Background()
	h.image("shop", func(s *v1alpha1.ImageSpec) { s.Tags = []string{"shop:v1", "reg.example/shop:v1"} })
	h.image("other", nil)
	empty := h.settled()
	load := func(ctx context.Context) (ocispec.Descriptor, error) {
		return h.store.ImportContent(ctx, bytes.NewReader(busyboxTar(t)), "", image.Edit{})
	}
	res, err := h.builder.Make(ctx, "default", "shop", Import, load)
	if err != nil {
		t.Fatal(err)
	}
	if res.Name != "docker.io/library/shop:v1" || res.Size == 0 {
		t.Errorf("result: %+v", res)
	}
	st := h.api.status("shop")
	if got := condition(st, v1alpha1.ImageBuilt); got.Reason != v1alpha1.ReasonImported || got.Status != metav1.ConditionTrue || st.Digest != res.Digest || st.NodeName == "" {
		t.Errorf("status: %+v", st)
	}
	for _, ref := range []string{"shop:v1", "reg.example/shop:v1"} {
		if got, err := h.store.Get(ctx, "default", ref); err != nil || got.Target.String() != res.Digest {
			t.Errorf("%s: %v, %v", ref, got.Target, err)
		}
	}
	if _, err := h.store.Get(ctx, "elsewhere", "shop:v1"); err == nil {
		t.Error("another namespace sees it")
	}
	after := h.settled()
	_, err = h.builder.Make(ctx, "default", "shop", Commit, func(ctx context.Context) (ocispec.Descriptor, error) {
		if _, err := h.store.ImportContent(ctx, strings.NewReader("no tar"), "", image.Edit{}); err == nil {
			t.Error("no tar was imported")
		}
		return ocispec.Descriptor{}, errors.New("the disk burns")
	})
	st = h.api.status("shop")
	if got := condition(st, v1alpha1.ImageBuilt); err == nil || got.Reason != v1alpha1.ReasonBuildFailed || !strings.Contains(got.Message, "the disk burns") || st.Digest != res.Digest {
		t.Errorf("after a failure: %v, %+v", err, st)
	}
	cancelled, cancel := context.WithCancel(ctx)
	_, err = h.builder.Make(cancelled, "default", "shop", Import, func(ctx context.Context) (ocispec.Descriptor, error) {
		target, err := load(ctx)
		cancel()
		return target, errors.Join(err, ctx.Err())
	})
	if got := condition(h.api.status("shop"), v1alpha1.ImageBuilt); err == nil || got.Reason != v1alpha1.ReasonBuildCancelled || !strings.Contains(got.Message, "Send the archive again") {
		t.Errorf("after the client went away: %v, %+v", err, got)
	}
	if _, err := h.builder.Make(ctx, "default", "none", Import, load); !apierrors.IsNotFound(err) {
		t.Errorf("an Image that does not exist: %v", err)
	}
	if now := h.back(after); !now.within(after) {
		t.Errorf("left over: %+v, want %+v (empty: %+v)", now, after, empty)
	}
}

// TestKilledImport: SIGKILL when an import is written but has no name yet. The next
// agent says so in the status, and nothing is left.
func TestKilledImport(t *testing.T) {
	h := newHost(t)
	h.image("doomed", nil)
	empty := h.settled()
	h.stop()
	archive := filepath.Join(t.TempDir(), "busybox.tar")
	write(t, archive, string(busyboxTar(t)))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childRoot+"="+h.root, childWork+"="+archive)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		if lines.Text() == "written <nil>" {
			break
		}
		t.Logf("child: %s", lines.Text())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	adoptJournal(t, h)
	h.start()
	eventually(t, "the import is reported as cut off", func() bool {
		got := condition(h.api.status("doomed"), v1alpha1.ImageBuilt)
		return got.Reason == v1alpha1.ReasonBuildCancelled && strings.Contains(got.Message, "the import was cut off")
	})
	if left := h.back(empty); !left.within(empty) {
		t.Errorf("left over: %+v, want %+v", left, empty)
	}
}
