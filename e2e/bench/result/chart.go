package result

import (
	"fmt"
	"math"
	"strings"
	"text/template"
)

// chart's geometry in pixels.
const (
	chartWidth  = 800
	labelWidth  = 360 // what is left of the bars
	valueWidth  = 60  // right of the longest bar
	barHeight   = 14
	rowHeight   = 26
	groupHeight = 34 // of a heading
)

type chartBar struct {
	Title, Value string
	Y, Width     float64
	Low, High    float64 // the range of the ratio
	Goal         float64
	Met          bool

	Text, Middle, Top, Bottom float64 // vertical positions
}

type chartGroup struct {
	Title string
	Y     float64
	Bars  []chartBar
}

// Chart draws the answers that have a ratio and a goal as an SVG document, in
// colours that suit a light and a dark background.
func (r *Run) Chart(answers []Answer) (string, error) {
	groups := []struct {
		title string
		lower bool
	}{{"More is better", false}, {"Less is better", true}}
	most := 1.0
	for _, a := range answers {
		if charted(&a) {
			most = max(most, a.Ratio.Max, a.Goal)
		}
	}
	most = math.Ceil(most*2) / 2
	scale := (chartWidth - labelWidth - valueWidth) / most
	x := func(ratio float64) float64 { return labelWidth + ratio*scale }

	y := 30.0
	var drawn []chartGroup
	for _, g := range groups {
		group := chartGroup{Title: g.title, Y: y + groupHeight - 12}
		y += groupHeight
		for _, a := range answers {
			if !charted(&a) || a.Lower != g.lower {
				continue
			}
			group.Bars = append(group.Bars, chartBar{
				Title: a.Title, Value: fmt.Sprintf("%.2f", a.Ratio.Median),
				Y: y, Width: a.Ratio.Median * scale,
				Low: x(a.Ratio.Min), High: x(a.Ratio.Max), Goal: x(a.Goal), Met: a.Met(),
				Text: y + barHeight - 2, Middle: y + barHeight/2, Top: y - 3, Bottom: y + barHeight + 3,
			})
			y += rowHeight
		}
		if len(group.Bars) == 0 {
			y -= groupHeight
			continue
		}
		drawn = append(drawn, group)
	}
	var s strings.Builder
	err := chartTemplate.Execute(&s, map[string]any{
		"Width": chartWidth, "Height": y + 30, "Bottom": y, "Left": labelWidth, "LabelEnd": labelWidth - 8,
		"One": x(1), "BarHeight": barHeight, "Groups": drawn, "Footer": y + 20,
		"Caption": fmt.Sprintf("median and range of %s, %s", plural(r.Rounds, "round"), r.Time.UTC().Format("2006-01-02")),
	})
	return s.String(), err
}

func charted(a *Answer) bool { return a.Missing == "" && a.Beside != (Cell{}) && a.Goal != 0 }

var chartTemplate = template.Must(template.New("chart").Funcs(template.FuncMap{
	"px":   func(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") },
	"text": template.HTMLEscapeString,
}).Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{px .Height}}" width="{{.Width}}" height="{{px .Height}}" role="img" aria-label="ifipsec as a ratio to the reference">
<style>
text { font: 12px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 }
.small { fill: #57606a; font-size: 11px }
.met { fill: #2da44e }
.not { fill: #bf8700 }
.range { stroke: #24292f; stroke-width: 1 }
.goal { stroke: #cf222e; stroke-width: 2 }
.one { stroke: #8c959f; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.small { fill: #8d96a0 }
.met { fill: #3fb950 }
.not { fill: #d29922 }
.range { stroke: #e6edf3 }
.goal { stroke: #ff7b72 }
.one { stroke: #6e7681 }
}
</style>
<text class="head" x="8" y="18">ifipsec as a ratio to the reference in the same round</text>
<line class="one" x1="{{px .One}}" y1="30" x2="{{px .One}}" y2="{{px .Bottom}}"/>
{{range .Groups}}<text class="head" x="8" y="{{px .Y}}">{{.Title}}</text>
{{range .Bars}}<text x="{{$.LabelEnd}}" y="{{px .Text}}" text-anchor="end">{{text .Title}}</text>
<rect class="{{if .Met}}met{{else}}not{{end}}" x="{{$.Left}}" y="{{px .Y}}" width="{{px .Width}}" height="{{$.BarHeight}}"/>
<line class="range" x1="{{px .Low}}" y1="{{px .Middle}}" x2="{{px .High}}" y2="{{px .Middle}}"/>
<line class="goal" x1="{{px .Goal}}" y1="{{px .Top}}" x2="{{px .Goal}}" y2="{{px .Bottom}}"/>
<text x="{{px .High}}" dx="6" y="{{px .Text}}">{{.Value}}</text>
{{end}}{{end}}<text class="small" x="8" y="{{px .Footer}}">red: the goal; dashed: the reference; {{text .Caption}}</text>
</svg>
`))
