package apply

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnswers: whoever does not listen is asked until the limit, and no longer.
func TestAnswers(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if !answers(t.Context(), "http://"+listener.Addr().String()) {
		t.Error("who listens does not answer")
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
		defer cancel()
		start := time.Now()
		if answers(ctx, "http://127.0.0.1:1") {
			t.Error("nobody answers")
		}
		if took := time.Since(start); took != answerLimit {
			t.Errorf("it took %v", took)
		}
	})
}
