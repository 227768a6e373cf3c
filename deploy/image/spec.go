package main

import (
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// What the image is. The Dockerfile says the same for those who build with an engine, and a test
// compares the two.
const (
	programPath = "sidecar" // in the layer, which has no leading slash
	uid         = 65532     // the customary nonroot
	opsPort     = "7201/tcp"
)

var architectures = []string{"amd64", "arm64"}

// fixedLabels are those that no build changes.
var fixedLabels = map[string]string{
	"org.opencontainers.image.title":         "wxtoken",
	"org.opencontainers.image.description":   "Sidecar that keeps WeChat access tokens for every pod, with one refresh for the whole cluster",
	"org.opencontainers.image.source":        "https://github.com/wxtoken/sidecar",
	"org.opencontainers.image.url":           "https://github.com/wxtoken/sidecar",
	"org.opencontainers.image.documentation": "https://github.com/wxtoken/sidecar#readme",
	"org.opencontainers.image.vendor":        "wxtoken",
	"org.opencontainers.image.licenses":      "Apache-2.0",
}

// labels are the image's labels, and its annotations as well.
func (s source) labels() map[string]string {
	all := map[string]string{
		"org.opencontainers.image.version": s.version,
		"org.opencontainers.image.created": s.created.Format(time.RFC3339),
	}
	if s.revision != "" {
		all["org.opencontainers.image.revision"] = s.revision
	}
	for k, v := range fixedLabels {
		all[k] = v
	}
	return all
}

// config is how the image runs. Only the operations port is exposed: values are handed out on
// loopback, which no port mapping reaches. Kubernetes ignores the health check, Docker and Podman
// use it.
func (s source) config() v1.Config {
	user := strconv.Itoa(uid)
	return v1.Config{
		User:         user + ":" + user,
		Entrypoint:   []string{"/" + programPath},
		WorkingDir:   "/",
		ExposedPorts: map[string]struct{}{opsPort: {}},
		Healthcheck: &v1.HealthConfig{
			Test:     []string{"CMD", "/" + programPath, "healthcheck"},
			Interval: 10 * time.Second, Timeout: 3 * time.Second, Retries: 3,
		},
		Labels: s.labels(),
	}
}

// The names that the uid has. Nothing here asks for them; tools that show processes and scanners
// do.
const (
	passwd = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
	group  = "root:x:0:\nnonroot:x:65532:\n"
)
