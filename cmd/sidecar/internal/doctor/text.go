package doctor

import (
	"fmt"
	"strings"
)

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// oneLine keeps what a peer said from being more than one line of the report.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
