package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"pelago/cluster/fault"
	"pelago/node/admin"
	"pelago/node/config"
)

// configCommand checks and prints the configuration.
type configCommand struct {
	Check    configCheck    `cmd:"" help:"Say what is wrong with it and with the files it names; nothing if all is well."`
	Print    configPrint    `cmd:"" help:"Print all of it, with comments: a file to start from."`
	Password configPassword `cmd:"" help:"Print the hash of PELAGO_PASSWORD for http.users."`
}

type configCheck struct {
	Config string `arg:"" optional:"" help:"TOML file." type:"existingfile"`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *configCheck) Run(e *env) error {
	loaded, err := config.Load(c.Config, e.environ)
	if err == nil {
		err = errors.Join(loaded.Check(), readable(loaded))
	}
	if !c.JSON {
		return err
	}
	said := struct {
		OK       bool     `json:"ok"`
		Problems []string `json:"problems"`
	}{err == nil, []string{}}
	if err != nil {
		said.Problems = strings.Split(err.Error(), "\n") // as joined errors are told
	}
	return errors.Join(err, printJSON(e.stdout, said))
}

// readable reports what a start would refuse in the files and hashes that a
// configuration names: certificates, keys, authorities, passwords.
func readable(c config.Config) error {
	_, _, dicom := dicomTLS(c.DICOM)
	_, _, web := webTLS(c.HTTP)
	_, audit := auditTLS(c.Audit)
	_, users := admin.NewGuard(c.HTTP.Users, admin.NewToken(), hostsOf(c.HTTP))
	return errors.Join(dicom, web, audit, users)
}

type configPrint struct {
	Config string `arg:"" optional:"" help:"TOML file." type:"existingfile"`
	JSON   bool   `name:"json" help:"Print JSON."`
}

func (c *configPrint) Run(e *env) error {
	loaded, err := config.Load(c.Config, e.environ)
	if err != nil {
		return err
	}
	if !c.JSON {
		return loaded.Print(e.stdout)
	}
	// By way of the TOML, so that keys and forms of values are the same.
	var text bytes.Buffer
	if err := loaded.Print(&text); err != nil {
		return err
	}
	var all map[string]any
	if err := toml.Unmarshal(text.Bytes(), &all); err != nil {
		return err
	}
	return printJSON(e.stdout, all)
}

type configPassword struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (c *configPassword) Run(e *env) error {
	for _, entry := range e.environ {
		if password, ok := strings.CutPrefix(entry, "PELAGO_PASSWORD="); ok && password != "" {
			hash, err := admin.HashPassword(password)
			switch {
			case err != nil:
				return err
			case c.JSON:
				return printJSON(e.stdout, map[string]string{"hash": hash})
			}
			_, err = fmt.Fprintln(e.stdout, hash)
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
