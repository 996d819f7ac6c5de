// Command pelago is a federated picture archive: the node of a hospital site,
// and the commands by which an operator works with it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"pelago/cluster/fault"
)

// version is set when a release is built.
var version = "unknown"

// cli is the command line; kong reads the tags.
type cli struct {
	Serve     serveCommand     `cmd:"" help:"Run a node."`
	Status    statusCommand    `cmd:"" help:"Show a node's state."`
	Sites     sitesCommand     `cmd:"" help:"List the network's sites and nodes."`
	Token     tokenCommand     `cmd:"" help:"Print a token by which one node may join the network."`
	Drain     drainCommand     `cmd:"" help:"Let a node take nothing new in."`
	Remove    removeCommand    `cmd:"" help:"Remove a node from the network, for good."`
	Lost      lostCommand      `cmd:"" help:"Declare a node or a site lost, so that what it held is made anew elsewhere."`
	Code      codeCommand      `cmd:"" help:"Print or set how studies are spread over sites, and so how many sites may be lost."`
	Find      findCommand      `cmd:"" help:"Search for patients' studies, series or instances."`
	Import    importCommand    `cmd:"" help:"Store files, folders, zip archives and DICOMDIR media."`
	Export    exportCommand    `cmd:"" help:"Write studies out as DICOM files."`
	Verify    verifyCommand    `cmd:"" help:"Re-read everything, check every hash and reference, report."`
	AE        aeCommand        `cmd:"" name:"ae" help:"List and edit the registered application entities."`
	Echo      echoCommand      `cmd:"" help:"Ask a registered AE for C-ECHO."`
	Conflicts conflictsCommand `cmd:"" help:"List, compare and decide quarantined instances."`
	Link      linkCommand      `cmd:"" help:"Say that two ids are of one patient."`
	Unlink    unlinkCommand    `cmd:"" help:"Take a link of two ids back."`
	Links     linksCommand     `cmd:"" help:"List the ids that are linked."`
	Issuer    issuerCommand    `cmd:"" help:"List and edit the local names of issuers of Patient IDs."`
	Delete    deleteCommand    `cmd:"" help:"Delete a study, series or instance (restorable for the delete grace)."`
	Undelete  undeleteCommand  `cmd:"" help:"Take a deletion back."`
	Hold      holdCommand      `cmd:"" help:"Keep studies or patients from being purged, list and lift what keeps them."`
	Backup    backupCommand    `cmd:"" help:"Copy a running node's data to a directory."`
	Restore   restoreCommand   `cmd:"" help:"Make a data directory from a backup."`
	Recover   recoverCommand   `cmd:"" help:"Make this survivor of a network without a majority its only voter (the node is stopped)."`
	Demo      demoCommand      `cmd:"" help:"Start sites, store, find and open images, kill one, and stay up."`
	Config    configCommand    `cmd:"" help:"Check or print the configuration."`
	Version   versionCommand   `cmd:"" help:"Print the version."`
}

// env is what commands may touch of the world.
type env struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // who asks a second time does not want to wait
	os.Exit(run(&env{ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}, os.Args[1:]))
}

// Exit codes: 0 done, 1 failed, 2 the command line or the configuration is
// wrong, 3 a node could not write.
func run(e *env, args []string) (code int) {
	var c cli
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("pelago"),
		kong.Description("A federated picture archive (PACS). Every site runs a node."),
		kong.UsageOnError(),
		kong.Writers(e.stdout, e.stderr),
		kong.Exit(func(n int) { exited = n }),
		kong.Bind(e),
	)
	if err != nil {
		panic(err) // the tags above are wrong
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		fmt.Fprintf(e.stderr, "pelago: %v\n", err)
		return 2
	}
	return exitCode(e, parsed.Run(e))
}

// exitCode tells what went wrong, and by what the process ends.
func exitCode(e *env, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled): // interrupted, and knows it
		return 1
	}
	fmt.Fprintf(e.stderr, "pelago: %v\n", err)
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		return exit.code
	case fault.Is(err, fault.Invalid):
		return 2
	}
	return 1
}
