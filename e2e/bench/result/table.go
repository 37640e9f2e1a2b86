package result

import (
	"fmt"
	"strings"
)

// unit says how a metric's values are printed: divided by scale, with so many
// decimals.
type unit struct {
	name     string
	scale    float64
	decimals int
}

func (m Metric) unit() unit {
	switch m {
	case BitsPerSecond:
		return unit{"Gbit/s", 1e9, 2}
	case PacketsPerSecond:
		return unit{"1000/s", 1e3, 1}
	case RoundTrip:
		return unit{"ms", 1e-3, 3}
	case DaemonsLoad:
		return unit{"ms/s", 1e-3, 2}
	case Resident:
		return unit{"MiB", 1 << 20, 1}
	case Fairness:
		return unit{"", 1, 2}
	default:
		return unit{"s/GB", 1, 2}
	}
}

// format prints a spread, such as "2.10 (1.95–2.31)"; one value alone needs no
// range.
func (u unit) format(s Spread) string {
	text := func(v float64) string { return fmt.Sprintf("%.*f", u.decimals, v/u.scale) }
	if s.Min == s.Max {
		return text(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", text(s.Median), text(s.Min), text(s.Max))
}

var ratioUnit = unit{"", 1, 2}

// header is the table's columns.
var header = []string{"what", "unit", "ifipsec", "beside", "ratio", "goal", "met"}

// cells are an answer's columns.
func (a *Answer) cells() []string {
	u := a.Metric.unit()
	cells := []string{a.Title, u.name, "", "", "", a.goal(), ""}
	if a.Missing != "" {
		cells[2] = "not available"
		return cells
	}
	cells[2] = u.format(a.Value)
	if a.Beside != (Cell{}) {
		cells[3], cells[4] = u.format(a.Reference), ratioUnit.format(a.Ratio)
	}
	switch {
	case a.Goal == 0:
	case a.Met():
		cells[6] = "yes"
	default:
		cells[6] = "no"
	}
	return cells
}

func (a *Answer) goal() string {
	if a.Goal == 0 {
		return ""
	}
	goal := a.Goal
	if a.Beside == (Cell{}) {
		goal /= a.Metric.unit().scale
	}
	if a.Lower {
		return fmt.Sprintf("≤ %.3g", goal)
	}
	return fmt.Sprintf("≥ %.3g", goal)
}

// Markdown is the answers as a table of a Markdown document, under a line that
// says how it came about.
func (r *Run) Markdown(answers []Answer) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s, %d cores, Linux %s, TCP %s, %s, wireguard-go %s; %s of %s each; %s.\n\n",
		r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.TCP, r.Machine.Go, r.Machine.WireGuard,
		plural(r.Rounds, "round"), plural(r.Seconds, "second"), r.Time.UTC().Format("2006-01-02"))
	line := func(cells []string) { fmt.Fprintf(&s, "| %s |\n", strings.Join(cells, " | ")) }
	line(header)
	line([]string{"---", "---", "---:", "---:", "---:", "---", "---"})
	for i := range answers {
		line(answers[i].cells())
	}
	return s.String()
}

// Text is the answers as a table for a terminal, and why any are missing.
func (r *Run) Text(answers []Answer) string {
	rows := [][]string{header}
	for i := range answers {
		rows = append(rows, answers[i].cells())
	}
	widths := make([]int, len(header))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var s strings.Builder
	for _, row := range rows {
		var l strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&l, "%-*s  ", widths[i], cell)
		}
		s.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	for _, a := range answers {
		if a.Missing != "" {
			fmt.Fprintf(&s, "%s: %s\n", a.Title, a.Missing)
		}
	}
	return s.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Markers are the lines between which [Replace] puts a table.
const (
	markerBegin = "<!-- bench: begin -->"
	markerEnd   = "<!-- bench: end -->"
)

// Replace returns a document with what is between its markers replaced by a
// text. It returns an error unless the document has both, in order.
func Replace(document, text string) (string, error) {
	before, rest, ok := strings.Cut(document, markerBegin+"\n")
	_, after, ok2 := strings.Cut(rest, markerEnd+"\n")
	if !ok || !ok2 {
		return "", fmt.Errorf("expected the lines %q and %q in the document", markerBegin, markerEnd)
	}
	return before + markerBegin + "\n" + text + markerEnd + "\n" + after, nil
}
