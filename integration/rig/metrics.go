package rig

import (
	"fmt"
	"regexp"
	"strings"
)

// Metrics are the series of one sidecar at one moment, by their line in the text format.
type Metrics map[string]float64

// Metrics asks the sidecar for all its series.
func (p *Sidecar) Metrics() (Metrics, error) {
	text, err := p.Show("/metrics")
	if err != nil {
		return nil, err
	}
	m := Metrics{}
	for line := range strings.Lines(text) {
		i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(line[i:], &v); err != nil {
			return nil, fmt.Errorf("metric line %q: %w", line, err)
		}
		m[line[:i]] = v
	}
	return m, nil
}

// Sum adds up the series of a name whose line matches all of the given regular expressions, such as
// `result="(failed|refused)"`.
func (m Metrics) Sum(name string, labels ...string) float64 {
	var want []*regexp.Regexp
	for _, l := range labels {
		want = append(want, regexp.MustCompile(l))
	}
	sum := 0.0
series:
	for line, v := range m {
		if rest, ok := strings.CutPrefix(line, name); !ok || rest != "" && rest[0] != '{' {
			continue
		}
		for _, l := range want {
			if !l.MatchString(line) {
				continue series
			}
		}
		sum += v
	}
	return sum
}

// Metric is [Metrics.Sum] of what the sidecar says now.
func (p *Sidecar) Metric(name string, labels ...string) float64 {
	p.t.Helper()
	m, err := p.Metrics()
	if err != nil {
		p.t.Fatal(err)
	}
	return m.Sum(name, labels...)
}

// Metric is the sum over the sidecars that run.
func (c *Cluster) Metric(name string, labels ...string) float64 {
	c.t.Helper()
	sum := 0.0
	for _, p := range c.Others(nil) {
		sum += p.Metric(name, labels...)
	}
	return sum
}
