package observe

import (
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// family is a counter with the labels app and, of a credential, kind; and further labels, each with
// a closed set of values.
type family struct {
	name, help string
	labels     []dimension
	// begins reports whether the series with these values of labels is shown from 0 on, so that the
	// first of its kind counts as an increase. Others are shown once they count something.
	begins func(values []string) bool
	// detail: no alert needs it per app. It is the first to be shortened if /metrics grows too
	// long.
	detail bool
}

// dimension is a label and its values.
type dimension struct {
	name   string
	values []string
}

// series is one counter of each credential, or of each app.
type series struct {
	desc           *prometheus.Desc
	before, after  []*dto.LabelPair // the labels that sort before and after kind
	begins, detail bool
	bytes          int // of its line without the values of app and kind and the number
}

// appHelp ends the HELP of every counter with the label app.
const appHelp = ` app="all" is the sum of all apps.`

// always and never say which series of a family a process begins with: all of them, or none.
func always([]string) bool { return true }
func never([]string) bool  { return false }

// tabulate returns the series of the families, one after the other. Within a family the last label
// changes fastest.
func tabulate(labels []string, families ...family) []series {
	var table []series
	for _, f := range families {
		names := slices.Clone(labels)
		for _, d := range f.labels {
			names = append(names, d.name)
		}
		desc := prometheus.NewDesc("wxtoken_"+f.name, f.help+appHelp, names, nil)
		for _, values := range product(f.labels) {
			s := series{desc: desc, begins: f.begins(values), detail: f.detail}
			s.bytes = len("wxtoken_") + len(f.name) + len("{} \n")
			for _, name := range names {
				s.bytes += len(name) + len(`="",`)
			}
			for i, d := range f.labels {
				pair := &dto.LabelPair{Name: &d.name, Value: &values[i]}
				if d.name < "kind" {
					s.before = append(s.before, pair)
				} else {
					s.after = append(s.after, pair)
				}
				s.bytes += len(values[i])
			}
			table = append(table, s)
		}
	}
	return table
}

// product returns each combination of the values of labels.
func product(labels []dimension) [][]string {
	all := [][]string{nil}
	for _, d := range labels {
		var longer [][]string
		for _, values := range all {
			for _, v := range d.values {
				longer = append(longer, append(slices.Clip(values), v))
			}
		}
		all = longer
	}
	return all
}

// owner are the labels of a credential, or of an app (without a kind), or of their sum.
type owner struct{ app, kind *dto.LabelPair }

var appLabel, kindLabel = "app", "kind"

func newOwner(app, kind string) owner {
	o := owner{app: &dto.LabelPair{Name: &appLabel, Value: &app}}
	if kind != "" {
		o.kind = &dto.LabelPair{Name: &kindLabel, Value: &kind}
	}
	return o
}

// is reports whether the labels are these.
func (o owner) is(app, kind string) bool { return o.app.GetValue() == app && o.kind.GetValue() == kind }

// bytes is how much the values of the labels add to each line.
func (o owner) bytes() int { return len(o.app.GetValue()) + len(o.kind.GetValue()) }

// labels puts the labels in order, as a Metric must write them.
func (o owner) labels(before, after []*dto.LabelPair) []*dto.LabelPair {
	all := make([]*dto.LabelPair, 0, 2+len(before)+len(after))
	all = append(append(all, o.app), before...)
	if o.kind != nil {
		all = append(all, o.kind)
	}
	return append(all, after...)
}

// bytesOf returns how long the line of s is for a count.
func (s *series) bytesOf(n uint64) int {
	if n == 0 {
		return s.bytes + 1
	}
	var text [24]byte
	return s.bytes + len(strconv.AppendFloat(text[:0], float64(n), 'g', -1, 64))
}

// counted is the value of a counter as a [prometheus.Metric]. The registry checks its labels, so it
// does without the check of [prometheus.NewConstMetric].
type counted struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
}

func (c *counted) Desc() *prometheus.Desc { return c.desc }

func (c *counted) Write(m *dto.Metric) error {
	m.Label, m.Counter = c.labels, &dto.Counter{Value: &c.value}
	return nil
}

// measured is the value of a gauge, as counted is that of a counter.
type measured counted

func (g *measured) Desc() *prometheus.Desc { return g.desc }

func (g *measured) Write(m *dto.Metric) error {
	m.Label, m.Gauge = g.labels, &dto.Gauge{Value: &g.value}
	return nil
}
