package main

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// execLine is a line of "exec" for kubectl, which wants "--" between a container and
// the command in it. Docker's users leave it out: what follows the name is then the
// command, with all its flags.
func execLine(line []string) []string {
	cmd, rest, err := newKubectlRoot("lighter", line).Find(line)
	if err != nil || cmd.Name() != "exec" {
		return line
	}
	flags := pflag.NewFlagSet("exec", pflag.ContinueOnError)
	flags.SetInterspersed(false)
	flags.Usage = func() {}
	flags.AddFlagSet(cmd.LocalFlags())
	flags.AddFlagSet(cmd.InheritedFlags())
	if flags.Parse(rest) != nil || flags.Changed("filename") {
		return line // kubectl says what is wrong; with a file there is no name
	}
	named := flags.Args()
	if len(named) < 2 || strings.HasPrefix(named[1], "-") {
		return line
	}
	return slices.Insert(slices.Clone(line), len(line)-len(named)+1, "--")
}
