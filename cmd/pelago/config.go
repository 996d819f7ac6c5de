package main

import (
	"fmt"
	"strings"

	"pelago/cluster/fault"
	"pelago/node/admin"
	"pelago/node/config"
)

// configCommand checks and prints the configuration.
type configCommand struct {
	Check    configCheck    `cmd:"" help:"Say what is wrong with it."`
	Print    configPrint    `cmd:"" help:"Print all of it, with comments: a file to start from."`
	Password configPassword `cmd:"" help:"Print the hash of PELAGO_PASSWORD for http.users."`
}

type configCheck struct {
	Config string `arg:"" optional:"" help:"TOML file." type:"existingfile"`
}

func (c *configCheck) Run(e *env) error {
	loaded, err := config.Load(c.Config, e.environ)
	if err != nil {
		return err
	}
	return loaded.Check()
}

type configPrint struct {
	Config string `arg:"" optional:"" help:"TOML file." type:"existingfile"`
}

func (c *configPrint) Run(e *env) error {
	loaded, err := config.Load(c.Config, e.environ)
	if err != nil {
		return err
	}
	return loaded.Print(e.stdout)
}

type configPassword struct{}

func (c *configPassword) Run(e *env) error {
	for _, entry := range e.environ {
		if password, ok := strings.CutPrefix(entry, "PELAGO_PASSWORD="); ok && password != "" {
			hash, err := admin.HashPassword(password)
			if err == nil {
				_, err = fmt.Fprintln(e.stdout, hash)
			}
			return err
		}
	}
	return fault.New(fault.Invalid, "set PELAGO_PASSWORD to the password")
}

// versionCommand prints the version.
type versionCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (v *versionCommand) Run(e *env) error {
	if v.JSON {
		return printJSON(e.stdout, map[string]string{"version": version})
	}
	_, err := fmt.Fprintln(e.stdout, "pelago", version)
	return err
}
