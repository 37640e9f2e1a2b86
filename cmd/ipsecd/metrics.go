package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"ifipsec/engine/control"
)

// printMetrics writes what was counted as Prometheus reads it from a file or a
// program: ipsec_esp_* for ESP as a whole, ipsec_interface_* for each interface,
// ipsec_sa_* for each SA; and the daemon's goroutines, as programs with Prometheus's
// client have them.
func printMetrics(w io.Writer, s control.StatisticsResult) error {
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(metrics{s}); err != nil {
		return err
	}
	families, err := registry.Gather()
	if err != nil {
		return err
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(w, family); err != nil {
			return err
		}
	}
	return nil
}

// metrics is a prometheus.Collector of statistics that do not change any more.
type metrics struct{ control.StatisticsResult }

// Describe implements [prometheus.Collector]. What there is depends on the
// statistics, and it is for the registry to look at them.
func (m metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (m metrics) Collect(out chan<- prometheus.Metric) {
	send := func(subject string, c control.Counter, labels map[string]string) {
		name := fmt.Sprintf("ipsec_%s_%s_total", subject, c.Name)
		keys := slices.Sorted(maps.Keys(labels))
		values := make([]string, len(keys))
		for i, k := range keys {
			values[i] = labels[k]
		}
		out <- prometheus.MustNewConstMetric(
			prometheus.NewDesc(name, sentence(subject, c.Text), keys, nil),
			prometheus.CounterValue, float64(c.Value), values...)
	}
	out <- prometheus.MustNewConstMetric(
		prometheus.NewDesc("go_goroutines", "Number of goroutines that currently exist.", nil, nil),
		prometheus.GaugeValue, float64(m.Goroutines))
	for _, c := range m.ESP {
		send("esp", c, nil)
	}
	for _, ifp := range m.Interfaces {
		for _, c := range ifp.Counters {
			send("interface", c, map[string]string{"interface": ifp.Name})
		}
	}
	for _, sa := range m.SAs {
		for _, c := range sa.Counters {
			send("sa", c, map[string]string{
				"spi": fmt.Sprint(sa.SPI), "src": sa.Src.String(), "dst": sa.Dst.String(), "reqid": fmt.Sprint(sa.ReqID),
			})
		}
	}
}

// sentence says what a counter counts.
func sentence(subject, text string) string {
	subject = map[string]string{"esp": "ESP", "interface": "An interface", "sa": "An SA"}[subject]
	return subject + ": " + strings.ReplaceAll(text, ";", ",") + "."
}
