package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// The Dockerfile's last stage must say what the image says, and its files must come from this
// program.
func TestTheDockerfileMakesTheSameImage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages := strings.Split(strings.ReplaceAll(string(text), "\\\n", ""), "\nFROM ")
	build, final := lines(stages[len(stages)-2]), lines(stages[len(stages)-1])
	if final[0] != "scratch" {
		t.Errorf("the base is %s, want scratch", final[0])
	}
	if !slices.ContainsFunc(build, func(l string) bool {
		return strings.HasPrefix(l, "RUN ") && strings.Contains(l, `go run ./image -version "$VERSION" -tags "$TAGS" -arch "$TARGETARCH" rootfs /rootfs`)
	}) {
		t.Error("the files are not made by this program")
	}

	src := source{version: "$VERSION", revision: "$REVISION", created: someTime}
	config := src.config()
	label := "LABEL"
	for k, v := range config.Labels {
		if k != "org.opencontainers.image.created" { // the engine notes that itself
			label += fmt.Sprintf(" %s=%q", k, v)
		}
	}
	port := ""
	for p := range config.ExposedPorts {
		port = p
	}
	h := config.Healthcheck
	want := []string{
		"scratch", "ARG VERSION=devel", "ARG REVISION=",
		sortedWords(label),
		"COPY --from=build /rootfs/ /",
		"WORKDIR " + config.WorkingDir,
		"USER " + config.User,
		"EXPOSE " + port,
		fmt.Sprintf(`HEALTHCHECK --interval=%v --timeout=%v --retries=%d CMD ["%s"]`, h.Interval, h.Timeout, h.Retries, strings.Join(h.Test[1:], `", "`)),
		fmt.Sprintf(`ENTRYPOINT ["%s"]`, config.Entrypoint[0]),
	}
	for i, l := range final {
		if strings.HasPrefix(l, "LABEL ") {
			final[i] = sortedWords(l)
		}
	}
	if !slices.Equal(final, want) {
		t.Errorf("the last stage says\n%s\nwant\n%s", strings.Join(final, "\n"), strings.Join(want, "\n"))
	}
}

// lines are the instructions, without comments and with single spaces.
func lines(stage string) []string {
	var out []string
	for l := range strings.Lines(stage) {
		if l = strings.Join(strings.Fields(l), " "); l != "" && l[0] != '#' {
			out = append(out, l)
		}
	}
	return out
}

func sortedWords(l string) string {
	words := strings.Fields(l)
	slices.Sort(words)
	return strings.Join(words, " ")
}
