package main

// The image is made from nothing, so it has no file with the roots of trust: without these,
// WeChat's certificate and that of a rediss:// server could not be verified there. A host's own
// roots, and SSL_CERT_FILE and SSL_CERT_DIR, come first: these serve only where there are none.
//
// Time zones need no such thing: nothing here asks for one by name (WeChat's day is a fixed +08:00,
// and all else is a duration or a Unix time).
import _ "golang.org/x/crypto/x509roots/fallback"
