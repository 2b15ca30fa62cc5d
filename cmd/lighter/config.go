package main

import (
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"lighter.dev/lighter/cmd/lighter/configfile"
)

// Where the daemons look for their settings unless --config names a file.
const (
	serverConfigFile = "/etc/lighter/server.yaml"
	agentConfigFile  = "/etc/lighter/agent.yaml"
)

// bindConfig adds --config to a command: every other flag of it may stand in
// that file. Call it after the flags are defined.
func bindConfig(cmd *cobra.Command, defaultPath string) { configfile.Bind(cmd, defaultPath) }

// The states that a daemon reports to systemd (sd_notify(3)).
const (
	notifyReady    = daemon.SdNotifyReady
	notifyStopping = daemon.SdNotifyStopping
)

// sdNotify reports a state to systemd. Under another supervisor it does nothing.
func sdNotify(state string) error {
	_, err := daemon.SdNotify(false, state)
	return err
}
