// Package integration holds the tests with real parts: sidecar processes, a redis-server, the
// WeChat simulator on a socket. There is nothing to import.
package integration
