package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/docker/cli/cli/config/types"
)

// LoginOptions are the flags of "lighter login".
type LoginOptions struct {
	Registry           string
	Username, Password string
	// PasswordStdin reads the password from In, to its end.
	PasswordStdin bool
	// CAFile has certificates of authorities beside the system's.
	CAFile string
	In     io.Reader
	// Out gets the result, Err questions and warnings.
	Out, Err io.Writer
}

// Login asks for what is missing, lets the registry confirm it, and keeps it. It
// returns the login with its password, for a pull secret.
func (l *Logins) Login(ctx context.Context, options LoginOptions) (types.AuthConfig, error) {
	login, err := options.ask(ctx, l)
	if err != nil {
		return login, err
	}
	verifier, err := newVerifier(options.CAFile)
	if err != nil {
		return login, err
	}
	kept, err := verifier.verify(ctx, options.Registry, login)
	if err != nil {
		return login, err
	}
	if err := l.store(options.Registry, kept); err != nil {
		return login, err
	}
	fmt.Fprintln(options.Out, "Login Succeeded")
	return login, nil
}

// ask completes the flags: from standard input where it is asked to, else from
// the terminal.
func (o LoginOptions) ask(ctx context.Context, known *Logins) (types.AuthConfig, error) {
	login := types.AuthConfig{Username: o.Username, Password: o.Password}
	if o.PasswordStdin {
		if o.Password != "" || o.Username == "" {
			return login, errors.New("--password-stdin needs --username, and no --password")
		}
		content, err := io.ReadAll(io.LimitReader(o.In, maxAnswer))
		if err != nil {
			return login, fmt.Errorf("read the password: %w", err)
		}
		login.Password = strings.TrimRight(string(content), "\r\n")
	} else if o.Password != "" {
		fmt.Fprintln(o.Err, "Warning: a password on the command line is seen by others of this machine: use --password-stdin")
	}
	if login.Username == "" {
		before, err := known.get(o.Registry)
		if err != nil {
			return login, err
		}
		if login.Username, err = o.askName(ctx, before.Username); err != nil {
			return login, err
		}
	}
	if login.Password == "" && !o.PasswordStdin {
		var err error
		if login.Password, err = o.askPassword(ctx); err != nil {
			return login, err
		}
	}
	if login.Username == "" || login.Password == "" {
		return login, errors.New("user name and password must not be empty")
	}
	return login, nil
}

func (o LoginOptions) askName(ctx context.Context, before string) (string, error) {
	if _, ok := terminalOf(o.In); !ok {
		return "", errNoTerminal
	}
	question := "Username: "
	if before != "" {
		question = fmt.Sprintf("Username (%s): ", before)
	}
	fmt.Fprint(o.Err, question)
	name, err := readLine(ctx, o.In)
	if err != nil {
		return "", fmt.Errorf("read the user name: %w", err)
	}
	return cmp.Or(name, before), nil
}

func (o LoginOptions) askPassword(ctx context.Context) (string, error) {
	if _, ok := terminalOf(o.In); !ok {
		return "", errNoTerminal
	}
	fmt.Fprint(o.Err, "Password: ")
	password, err := readSecret(ctx, o.In)
	fmt.Fprintln(o.Err)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return password, nil
}

var errNoTerminal = errors.New("there is no terminal to ask on: give --username and --password-stdin")
