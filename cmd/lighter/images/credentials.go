package images

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"

	"lighter.dev/lighter/api/agentapi"
)

const (
	// hub is Docker's own registry as names have it.
	hub = "docker.io"
	// hubKey is what it is called in configuration files since its first version.
	hubKey = "https://index.docker.io/v1/"
)

// Logins are a user's rights at registries: Docker's configuration file and the
// credential helpers that it names.
type Logins struct{ file *configfile.ConfigFile }

// LoadLogins reads $DOCKER_CONFIG/config.json, by default in ~/.docker.
func LoadLogins() (*Logins, error) {
	file, err := config.Load(config.Dir())
	if err != nil {
		return nil, fmt.Errorf("read Docker's configuration: %w", err)
	}
	return &Logins{file}, nil
}

// For is what is known of a registry, in the form that agents take.
func (l *Logins) For(registry string) (agentapi.Credentials, error) {
	found, err := l.get(registry)
	if err != nil || (found.Username == "" && found.IdentityToken == "") {
		return agentapi.Credentials{}, err
	}
	return agentapi.Credentials{Credentials: []agentapi.Credential{{
		Host: registry, Username: found.Username, Password: found.Password, IdentityToken: found.IdentityToken,
	}}}, nil
}

func (l *Logins) get(registry string) (types.AuthConfig, error) {
	found, err := l.file.GetAuthConfig(configKey(registry))
	if err != nil {
		return types.AuthConfig{}, fmt.Errorf("credentials of %s from %s: %w", registry, l.file.Filename, err)
	}
	return found, nil
}

// store keeps a login: in a credential helper, else, with the library's warning,
// in the file, which nobody else may read.
func (l *Logins) store(registry string, login types.AuthConfig) error {
	login.ServerAddress = configKey(registry)
	if err := l.file.GetCredentialsStore(login.ServerAddress).Store(login); err != nil {
		return fmt.Errorf("keep the password of %s: %w", registry, err)
	}
	// The library keeps the mode of a file that was there before.
	if err := os.Chmod(l.file.Filename, 0o600); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("keep the password of %s: %w", registry, err)
	}
	return nil
}

// erase forgets a login; known tells whether there was one.
func (l *Logins) erase(registry string) (known bool, err error) {
	found, err := l.get(registry)
	if err != nil {
		return false, err
	}
	key := configKey(registry)
	if err := l.file.GetCredentialsStore(key).Erase(key); err != nil {
		return false, fmt.Errorf("forget the password of %s: %w", registry, err)
	}
	return found.Username != "" || found.IdentityToken != "", nil
}

func configKey(registry string) string {
	if registry == hub {
		return hubKey
	}
	return registry
}

// registryOf is the registry of a full name: "docker.io", "host:port".
func registryOf(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}

// CleanRegistry takes what a user calls a registry: with or without scheme and
// path, or one of the names of Docker's own.
func CleanRegistry(registry string) string {
	registry = strings.TrimPrefix(strings.TrimPrefix(registry, "https://"), "http://")
	registry, _, _ = strings.Cut(registry, "/")
	switch registry {
	case "", "index.docker.io", "registry-1.docker.io":
		return hub
	}
	return registry
}

// ForImage is what is known of the registry of an image's name.
func (l *Logins) ForImage(ref string) (agentapi.Credentials, error) {
	return l.For(registryOf(ref))
}

// Logout forgets the login at a registry.
func (l *Logins) Logout(out io.Writer, registry string) error {
	known, err := l.erase(registry)
	if err != nil {
		return err
	}
	if !known {
		fmt.Fprintf(out, "Not logged in to %s\n", registry)
		return nil
	}
	fmt.Fprintf(out, "Removing login credentials for %s\n", registry)
	return nil
}
