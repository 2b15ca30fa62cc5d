package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"lighter.dev/lighter/cmd/lighter/containers"
)

// podVerbs are the verbs of kubectl about one container, which Docker's users know
// too, and write in another way.
var podVerbs = []string{"exec", "logs", "attach", "cp"}

// renamedPatience bounds the question who has a name; kubectl says what is wrong when
// nobody answers.
const renamedPatience = 5 * time.Second

// podLine is a line of one of podVerbs as kubectl wants it: with "--" between a
// container and the command in it, and with the pod in place of a name that
// "lighter rename" gave.
func podLine(line []string) []string {
	connection := configFlags()
	verb, at := arguments(line, connection)
	if len(at) == 0 {
		return line
	}
	config, namespace, err := target(connection)
	if err != nil {
		return line // kubectl says so
	}
	ctx, cancel := context.WithTimeout(context.Background(), renamedPatience)
	defer cancel()
	cluster, err := containers.Connect(config, namespace)
	if err != nil {
		return line
	}
	return rewrite(line, verb, at, func(name string) string { return cluster.PodOf(ctx, name) })
}

// rewrite does it, given where the arguments are that are no flags. podOf says which
// pod has a name.
func rewrite(line []string, verb string, at []int, podOf func(name string) string) []string {
	line = slices.Clone(line)
	if verb == "cp" {
		for _, i := range at {
			if name, path, remote := strings.Cut(line[i], ":"); remote && name != "" && !strings.Contains(name, "/") {
				line[i] = podOf(name) + ":" + path
			}
		}
		return line
	}
	first := at[0]
	if name, container, _ := strings.Cut(line[first], "/"); container == "" {
		line[first] = podOf(name)
	}
	if verb == "exec" && len(at) > 1 && at[1] == first+1 {
		line = slices.Insert(line, at[1], "--")
	}
	return line
}

// arguments finds which of podVerbs a line is of, and where its arguments are that are
// no flags; none if kubectl will refuse it. Those of exec end where its command
// begins, with the first of them, or without one after "--".
func arguments(line []string, connection *genericclioptions.ConfigFlags) (verb string, at []int) {
	cmd, rest, err := newKubectlRoot("lighter", line, connection).Find(line)
	if err != nil || !slices.Contains(podVerbs, cmd.Name()) {
		return "", nil
	}
	flags := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
	flags.SetInterspersed(false)
	flags.Usage = func() {}
	flags.AddFlagSet(cmd.LocalFlags())
	flags.AddFlagSet(cmd.InheritedFlags())
	for dash, command := false, false; len(rest) > 0 && !command; {
		if !dash {
			if flags.Parse(rest) != nil {
				return "", nil
			}
			dash = flags.ArgsLenAtDash() == 0
			if rest = flags.Args(); len(rest) == 0 {
				break
			}
		}
		if dash && cmd.Name() == "exec" {
			break
		}
		at = append(at, len(line)-len(rest))
		rest = rest[1:]
		if command = cmd.Name() == "exec" && len(rest) > 0 && !strings.HasPrefix(rest[0], "-"); command {
			at = append(at, len(line)-len(rest))
		}
	}
	if flags.Changed("filename") {
		return "", nil // instead of a name
	}
	return cmd.Name(), at
}
