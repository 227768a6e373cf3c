package secret_test

import (
	"encoding/json"
	"fmt"

	"github.com/wxtoken/sidecar/pkg/secret"
)

// A secret prints as [redacted], whatever prints it. Reveal is its one way out.
func ExampleString() {
	password := secret.New("open sesame")
	fmt.Printf("%v %s %q %v\n", password, password, password, struct{ Password secret.String }{password})
	inJSON, _ := json.Marshal(map[string]secret.String{"password": password})
	fmt.Println(string(inJSON))
	fmt.Println(password.Equal(secret.New("open sesame")), len(password.Reveal()))
	// Output:
	// [redacted] [redacted] [redacted] {[redacted]}
	// {"password":"[redacted]"}
	// true 11
}
