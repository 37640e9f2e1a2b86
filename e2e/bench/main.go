// Bench measures how fast ifipsec is beside wireguard-go: on two hosts that it
// makes itself for each, in the same run, in turns. It needs root, Go and
// iperf3, and leaves nothing behind but the result.
//
//	bench [-rounds N] [-seconds N] [-rows REGEXP] [-quick] [-docs DIR] [-data FILE] [-cpuprofile DIR]
//	bench -from FILE [-rows REGEXP] [-docs DIR]
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"ifipsec/e2e/bench/result"
	"ifipsec/e2e/lab"
	"ifipsec/e2e/lab/programs"
)

func main() {
	lab.Init()
	var b bench
	rows := flag.String("rows", ".", "measure only the rows whose names match the regular `expression`")
	quick := flag.Bool("quick", false, "one round of one second: it shows that it works, not how fast")
	list := flag.Bool("list", false, "list the names of the rows")
	flag.IntVar(&b.rounds, "rounds", 5, "how often everything is measured")
	flag.IntVar(&b.seconds, "seconds", 3, "how long one measurement lasts")
	flag.StringVar(&b.docs, "docs", "", "write the table into performance.md, the chart and the data beside it, in a `directory`")
	flag.StringVar(&b.from, "from", "", "measure nothing, and show what -data or -docs left in a `file`")
	flag.StringVar(&b.data, "data", "", "write what was measured to a `file`, as JSON")
	flag.StringVar(&b.profiles, "cpuprofile", "", "profile the last round with perf(1), into a `directory`")
	flag.Parse()
	if *list {
		for _, e := range experiments {
			fmt.Printf("%-22s %s\n", e.name, e.title)
		}
		return
	}
	if *quick {
		b.rounds, b.seconds = 1, 1
	}
	matches, err := regexp.Compile(*rows)
	switch {
	case err == nil && flag.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case err == nil && (b.rounds < 1 || b.seconds < 1):
		err = errors.New("-rounds and -seconds must be at least 1")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	b.progress = os.Stderr
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, os.Stdout, chosen(matches)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is how the benchmark is run.
type bench struct {
	rounds, seconds      int
	docs, data, profiles string // where results go; empty: nowhere
	from                 string // the data of an earlier run; empty: there is none
	progress             io.Writer
}

// run measures experiments and reports them.
func (b *bench) run(ctx context.Context, out io.Writer, all []experiment) error {
	if len(all) == 0 {
		return errors.New("no row has such a name; -list lists them")
	}
	run, err := b.results(ctx, all)
	if err != nil {
		return err
	}
	answers := answersOf(run, all)
	fmt.Fprint(out, run.Text(answers))
	if err := b.write(run, answers); err != nil {
		return err
	}
	if len(run.Unavailable) > 0 {
		return errors.New("not everything could be measured")
	}
	return nil
}

// answersOf answers the rows of experiments. Those that an earlier run did not
// measure are left out.
func answersOf(run *result.Run, all []experiment) (answers []result.Answer) {
	for _, e := range all {
		if a := run.Answer(e.row()); a.Missing != result.NotMeasured {
			answers = append(answers, a)
		}
	}
	return answers
}

// results are an earlier run's, or new ones.
func (b *bench) results(ctx context.Context, all []experiment) (*result.Run, error) {
	if b.from == "" {
		if err := lab.Available(); err != nil {
			return nil, err
		}
		return b.measure(ctx, all)
	}
	f, err := os.Open(b.from)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return result.Read(f)
}

// measure makes the hosts and measures all cells, round by round.
func (b *bench) measure(ctx context.Context, all []experiment) (run *result.Run, err error) {
	bin, err := os.MkdirTemp("", "ifipsec-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(bin)
	if err := errors.Join(programs.Build(bin), buildWireGuard(ctx, filepath.Join(bin, wireGuard.name))); err != nil {
		return nil, err
	}
	run = &result.Run{Time: time.Now(), Rounds: b.rounds, Seconds: b.seconds, Unavailable: make(map[string]string)}
	if run.Machine, err = machine(ctx); err != nil {
		return nil, err
	}

	groups := cells(all)
	pairs := make(map[string]*pair)
	defer func() {
		for _, p := range pairs {
			err = errors.Join(err, p.close())
		}
	}()
	for _, s := range systems(groups) {
		fmt.Fprintf(b.progress, "set up %s\n", s.name)
		p, err := newPair(ctx, s, bin)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			fmt.Fprintf(b.progress, "%s is not available: %v\n", s.name, err)
			run.Unavailable[s.name] = err.Error()
		default:
			pairs[s.name] = p
		}
	}
	for round := range b.rounds {
		for _, group := range groups {
			// Everybody goes first now and then.
			for i := range group {
				c := group[(i+round)%len(group)]
				p := pairs[c.system.name]
				if p == nil {
					continue
				}
				v, err := b.cell(ctx, round, c, p)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", c.system.name, c.traffic.name, err)
				}
				run.Measurements = append(run.Measurements, result.Measurement{Round: round, Cell: c.key(), Values: v})
			}
		}
	}
	slices.SortStableFunc(run.Measurements, func(a, b result.Measurement) int { return cmp.Compare(a.Round, b.Round) })
	return run, nil
}

// attempts is how often a measurement is tried.
const attempts = 3

// cell measures one cell, in the last round under a profiler if there is to be
// a profile.
func (b *bench) cell(ctx context.Context, round int, c cell, p *pair) (v values, err error) {
	measure := func() error {
		// On a machine that is too busy, iperf3 may lose what controls it.
		for range attempts {
			if v, err = c.traffic.run(ctx, p, b.seconds); err == nil || ctx.Err() != nil {
				break
			}
			fmt.Fprintf(b.progress, "%s, %s: once more, because of: %v\n", c.system.name, c.traffic.name, err)
		}
		return err
	}
	if b.profiles != "" && round == b.rounds-1 {
		err = profiled(ctx, b.profiles, c.system.name+", "+c.traffic.name, measure)
	} else {
		err = measure()
	}
	fmt.Fprintf(b.progress, "%d/%d  %-28s %-24s %s\n", round+1, b.rounds, c.system.name, c.traffic.name, describe(v))
	return v, err
}
