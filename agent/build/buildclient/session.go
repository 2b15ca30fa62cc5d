package buildclient

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
)

// attachables are what the builder may ask this client for while it builds,
// beside the folder: credentials of registries, secrets, and signatures of SSH
// agents.
func (cfg Config) attachables() ([]session.Attachable, error) {
	logins := cfg.Logins
	if logins == nil {
		logins = config.LoadDefaultConfigFile(os.Stderr)
	}
	out := []session.Attachable{authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(logins),
	})}
	if len(cfg.Secrets) > 0 {
		secrets, err := secretProvider(cfg.Secrets)
		if err != nil {
			return nil, err
		}
		out = append(out, secrets)
	}
	if len(cfg.SSH) > 0 {
		agents := make([]sshprovider.AgentConfig, 0, len(cfg.SSH))
		for _, text := range cfg.SSH {
			agents = append(agents, parseSSH(text))
		}
		ssh, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return nil, fmt.Errorf("--ssh: %w", err)
		}
		out = append(out, ssh)
	}
	return out, nil
}

func secretProvider(texts []string) (session.Attachable, error) {
	sources := make([]secretsprovider.Source, 0, len(texts))
	for _, text := range texts {
		source, err := parseSecret(text)
		if err != nil {
			return nil, fmt.Errorf("--secret %s: %w", text, err)
		}
		sources = append(sources, source)
	}
	store, err := secretsprovider.NewStore(sources)
	if err != nil {
		return nil, fmt.Errorf("--secret: %w", err)
	}
	return secretsprovider.NewSecretProvider(store), nil
}

// parseSecret reads "id=ID[,src=FILE|,env=NAME]" as Docker has it: an ID alone
// names a variable of the environment or else a file. What cannot be read is
// found here rather than in the middle of the build.
func parseSecret(text string) (secretsprovider.Source, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return secretsprovider.Source{}, err
	}
	var out secretsprovider.Source
	kind := ""
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return out, fmt.Errorf("%q: want key=value", field)
		}
		switch strings.ToLower(key) {
		case "id":
			out.ID = value
		case "src", "source":
			out.FilePath = value
		case "env":
			out.Env = value
		case "type":
			kind = value
		default:
			return out, fmt.Errorf("%q: want id, src or env", key)
		}
	}
	if kind == "env" && out.Env == "" {
		out.Env, out.FilePath = out.FilePath, ""
	}
	return out, checkSecret(&out)
}

func checkSecret(s *secretsprovider.Source) error {
	if s.ID == "" {
		return errors.New("id= is missing: it is what RUN --mount=type=secret,id=… names")
	}
	if s.Env == "" && s.FilePath == "" {
		if _, ok := os.LookupEnv(s.ID); ok {
			s.Env = s.ID
		} else {
			s.FilePath = s.ID
		}
	}
	if s.Env != "" {
		if _, ok := os.LookupEnv(s.Env); !ok {
			return fmt.Errorf("the environment has no variable %s", s.Env)
		}
		return nil
	}
	info, err := os.Stat(s.FilePath)
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder", s.FilePath)
	}
	if err != nil {
		return err
	}
	file, err := os.Open(s.FilePath)
	if err != nil {
		return err
	}
	return file.Close()
}

// parseSSH reads "default" or "ID=SOCKET" or "ID=KEY[,KEY]" as Docker has it.
func parseSSH(text string) sshprovider.AgentConfig {
	id, paths, given := strings.Cut(text, "=")
	out := sshprovider.AgentConfig{ID: id}
	if given {
		out.Paths = strings.Split(paths, ",")
	}
	return out
}
