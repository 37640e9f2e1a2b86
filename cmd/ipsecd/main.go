// Ipsecd is the daemon that holds a network namespace's IPsec: the databases,
// the ipsec interfaces, and the ESP tunnels that run over them. Commands start
// it when they need it; run by hand it stays in the foreground and logs to
// standard error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"ifipsec/engine"
	"ifipsec/engine/control"
	"ifipsec/engine/handover"
	"ifipsec/engine/keysock"
	"ifipsec/engine/privilege"
	"ifipsec/engine/readable"
	"ifipsec/engine/rundir"
)

// stopTimeout bounds how long -stop waits for a daemon to tidy up. Linux takes
// some milliseconds for each interface.
const stopTimeout = time.Minute

// exitUsage is the exit status for a wrong command line.
const exitUsage = 2

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("ipsecd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: ipsecd [-replace] [-state-dir directory] [-v] [-no-offload] [-packet-socket | -xdp]\n       ipsecd -status [-json | -prometheus]\n       ipsecd -esp-sa\n       ipsecd -sysctl [name[=value] ...]\n       ipsecd -stop\n       ipsecd [-n] [-v] -rc file\n       ipsecd -version")
		flags.PrintDefaults()
	}
	stop := flags.Bool("stop", false, "end the daemon of this network namespace")
	show := flags.Bool("status", false, "print what the daemon of this network namespace has counted")
	asJSON := flags.Bool("json", false, "with -status: all counters, as JSON")
	prometheus := flags.Bool("prometheus", false, "with -status: all counters, as Prometheus's metrics")
	table := flags.Bool("esp-sa", false, "print the SAs, with their keys, as Wireshark's table esp_sa")
	rcFile := flags.String("rc", "", "do what a `file` in the language of rc.conf says of interfaces, keys and routes")
	dry := flags.Bool("n", false, "with -rc: print the commands and run none")
	replace := flags.Bool("replace", false, "take over from the daemon of this network namespace, in the background")
	stateDir := flags.String("state-dir", "", "keep in this `directory`, on a disk, what is to outlive the machine, keys too")
	variables := flags.Bool("sysctl", false, "print or set the variables that are named, or print all")
	version := flags.Bool("version", false, "print the version")
	verbose := flags.Bool("v", false, "log every change of configuration; with -rc, print the commands")
	noOffload := flags.Bool("no-offload", false, "open TUN devices without segmentation offload, for kernels that refuse it")
	packetSocket := flags.Bool("packet-socket", false, "send ESP packets right to Ethernet links, which is faster, past the host's firewall")
	useXDP := flags.Bool("xdp", false, "send and receive ESP packets right on Ethernet links by AF_XDP, which is fastest, past the host's firewall and queues")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage
	}
	misuse := ""
	switch {
	case flags.NArg() > 0 && !*variables:
		misuse = fmt.Sprintf("unexpected argument %q", flags.Arg(0))
	case *asJSON && !*show:
		misuse = "-json goes with -status"
	case *dry && *rcFile == "":
		misuse = "-n goes with -rc"
	case *stateDir != "" && !filepath.IsAbs(*stateDir):
		misuse = "-state-dir wants an absolute path"
	case *stateDir != "" && countTrue(*stop, *show, *table, *variables, *rcFile != "", *version) > 0:
		misuse = "-state-dir is for the daemon"
	case *packetSocket && *useXDP:
		misuse = "one of -packet-socket and -xdp"
	case *prometheus && !*show:
		misuse = "-prometheus goes with -status"
	case *asJSON && *prometheus:
		misuse = "one of -json and -prometheus"
	case countTrue(*replace, *stop, *show, *table, *variables, *rcFile != "", *version) > 1:
		misuse = "one of -replace, -stop, -status, -esp-sa, -sysctl, -rc and -version"
	}
	if misuse != "" {
		fmt.Fprintln(stderr, "ipsecd:", misuse)
		flags.Usage()
		return exitUsage
	}

	var err error
	switch {
	case *version:
		fmt.Fprintln(stdout, "ipsecd", buildVersion())
	case *show:
		as := inText
		switch {
		case *asJSON:
			as = inJSON
		case *prometheus:
			as = asMetrics
		}
		err = status(stdout, as)
	case *table:
		err = espSA(stdout)
	case *rcFile != "":
		return newRC(stdout, stderr, *verbose || *dry, *dry).apply(*rcFile)
	case *variables:
		return sysctls(flags.Args(), stdout, stderr)
	case *stop:
		err = stopDaemon()
	default:
		level := slog.LevelInfo
		if *verbose {
			level = slog.LevelDebug
		}
		log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
		switch {
		case *replace && !rundir.InBackground():
			err = replaceDaemon(args)
		case !rundir.Supervised():
			inherit := loadXDP(*useXDP, log)
			if _, err = confine(); err == nil {
				return rundir.Supervise(log, args, withoutReplace(args), inherit...)
			}
		default:
			cfg := engine.Config{Log: log, Offload: !*noOffload, PacketSocket: *packetSocket || *useXDP, PermanentDir: *stateDir}
			if *useXDP {
				cfg.XDP = ownXDP(log)
			}
			err = serve(cfg, *replace)
		}
		// Until the daemon serves, a command may be waiting for it.
		rundir.Report(err)
	}
	if err != nil {
		fmt.Fprintln(stderr, "ipsecd:", err)
		return 1
	}
	return 0
}

func countTrue(all ...bool) (n int) {
	for _, is := range all {
		if is {
			n++
		}
	}
	return n
}

// serve is the daemon's life. It returns nil when a signal ended it, or when
// another one took over. With replace, it takes over itself.
func serve(cfg engine.Config, replace bool) (err error) {
	log := cfg.Log
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + readable.Threads)
	shortfalls, err := confine()
	if err != nil {
		return err
	}
	var needed []uint32
	if cfg.XDP != nil {
		needed = append(needed, unix.SYS_BPF)
	}
	switch err := privilege.Seal(needed...); {
	case errors.Is(err, errors.ErrUnsupported):
		shortfalls = append(shortfalls, fmt.Errorf("system calls are not filtered: %w", err))
	case err != nil:
		return err
	}
	dir, err := rundir.Current()
	if err != nil {
		return err
	}
	// Before the daemon that runs is disturbed.
	if cfg.PermanentDir, err = dir.ChoosePermanent(cfg.PermanentDir); err != nil {
		return err
	}
	if err := engine.CheckPermanent(dir.State(), cfg.PermanentDir); err != nil {
		return err
	}
	taken := func() error { return nil }
	var files *handover.Descriptors
	if replace {
		successor, descriptors, err := takeOver(dir)
		if err != nil {
			return err
		}
		defer successor.Abandon()
		taken, files = successor.Serves, descriptors
	}
	defer files.Close()
	lock, err := dir.Lock()
	if err != nil {
		return err
	}
	release := lock.Release
	defer func() { err = errors.Join(err, release()) }()
	claim, err := rundir.TakeNamespace()
	if stranger, ok := errors.AsType[*rundir.StrangerError](err); ok {
		shortfalls = append(shortfalls, fmt.Errorf("a second daemon of this namespace would not be noticed: %w", stranger))
	} else if err != nil {
		return err
	}
	unclaim := claim.Release
	defer func() { err = errors.Join(err, unclaim()) }()

	cfg.StateDir, cfg.Taken = dir.State(), files
	e, err := engine.New(cfg)
	if err != nil {
		return err
	}
	// Whatever goes wrong with the daemon, the next one goes on. Only who is told
	// to end takes everything along.
	leave := e.Leave
	defer func() { err = errors.Join(err, leave()) }()
	if err := dir.KeepPermanent(cfg.PermanentDir); err != nil {
		return err
	}
	controls, err := control.Listen(dir.Control())
	if err != nil {
		return err
	}
	defer controls.Close()
	keys, err := keysock.Listen(dir.PFKey())
	if err != nil {
		return err
	}
	defer keys.Close()
	fromSystemd, err := activatedSockets()
	if err != nil {
		return err
	}
	defer fromSystemd.close()

	successors, err := handover.Listen(dir.Handover())
	if err != nil {
		return err
	}
	defer successors.Close()

	ctx, cancel := signal.NotifyContext(context.Background(), ends()...)
	defer cancel()
	log.Info("ipsecd serves", "dir", string(dir), "version", buildVersion())
	for _, s := range shortfalls {
		log.Warn(s.Error())
	}
	rundir.Report(nil)
	if err := taken(); err != nil {
		log.Warn("the daemon before this one ended too early", "error", err)
	}
	tell(daemon.SdNotifyReady)
	var predecessor *handover.Predecessor
	parts := []func(context.Context) error{e.Run, func(ctx context.Context) (err error) {
		predecessor, err = acceptSuccessor(ctx, successors)
		return err
	}}
	for _, l := range append(fromSystemd.controls, controls) {
		parts = append(parts, func(ctx context.Context) error { return control.Serve(ctx, l, e, log) })
	}
	for _, l := range append(fromSystemd.keys, keys) {
		parts = append(parts, func(ctx context.Context) error { return keysock.Serve(ctx, l, e.Key(), log) })
	}
	err = runAll(ctx, parts...)
	tell(daemon.SdNotifyStopping)
	if errors.Is(err, errSucceeded) {
		log.Info("another ipsecd takes over")
		// Packets wait in the files when nobody reads them any more.
		err = errors.Join(predecessor.Give(e.Files()), e.Leave(), claim.Release(), lock.Leave())
		nothing := func() error { return nil }
		leave, unclaim, release = nothing, nothing, nothing
		// An error makes our parent start this version again.
		err = errors.Join(err, predecessor.Done())
	}
	log.Info("ipsecd ends", "error", err)
	if ctx.Err() != nil {
		leave = e.Close
	}
	return err
}

// confine gives up the privileges that neither the daemon nor the parent that
// starts it needs. The shortfalls are protections that this host does not have,
// and no reason not to serve.
func confine() (shortfalls []error, err error) {
	if err := privilege.Check(); err != nil {
		return nil, err
	}
	if err := privilege.LockMemory(); err != nil {
		shortfalls = append(shortfalls, fmt.Errorf("memory is not locked, so keys may get into swap space: %w", err))
	}
	return shortfalls, privilege.Drop()
}

// ends are the signals that end the daemon. nohup(1) takes one of them away.
func ends() []os.Signal {
	all := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// runAll runs the daemon's parts until ctx ends or one of them fails, which
// ends the others.
func runAll(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() {
			defer cancel()
			if err := part(ctx); err != nil && !errors.Is(err, context.Canceled) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
