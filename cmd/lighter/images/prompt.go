package images

import (
	"bufio"
	"context"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// terminalOf is the descriptor of a stream, if a person sits at it.
func terminalOf(stream any) (fd int, ok bool) {
	file, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd())
	return fd, term.IsTerminal(fd)
}

// readLine reads what a person types.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	return interruptible(ctx, in, func() (string, error) {
		line, err := bufio.NewReader(in).ReadString('\n')
		return strings.TrimSpace(line), err
	})
}

// readSecret reads what a person types without showing it.
func readSecret(ctx context.Context, in io.Reader) (string, error) {
	fd, _ := terminalOf(in)
	return interruptible(ctx, in, func() (string, error) {
		content, err := term.ReadPassword(fd)
		return string(content), err
	})
}

// interruptible ends a question at Ctrl-C, which the program catches for orderly
// ends, and leaves the terminal as it was. The read itself cannot be ended; the
// program does soon.
func interruptible(ctx context.Context, in io.Reader, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	fd, terminal := terminalOf(in)
	state, err := term.GetState(fd)
	restorable := terminal && err == nil
	go func() {
		text, err := read()
		answers <- answer{text, err}
	}()
	select {
	case got := <-answers:
		return got.text, got.err
	case <-ctx.Done():
		if restorable {
			_ = term.Restore(fd, state) // the program ends anyway
		}
		return "", ctx.Err()
	}
}
