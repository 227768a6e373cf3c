package main

import (
	"io"
	stdlog "log"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
)

// newLogger writes JSON in a pod and lines for people on a terminal. Nothing is sampled: there is
// little to say, and all of it matters.
func newLogger(cfg config.Log, w io.Writer) *zap.Logger {
	level, err := zapcore.ParseLevel(cfg.Level)
	if err != nil {
		level = zapcore.InfoLevel // the configuration was checked
	}
	encoder := zap.NewProductionEncoderConfig()
	encoder.TimeKey, encoder.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	encoder.EncodeDuration = zapcore.StringDurationEncoder
	enc := zapcore.NewJSONEncoder(encoder)
	if cfg.Format == config.LogConsole || cfg.Format == config.LogAuto && isTerminal(w) {
		encoder.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoder.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder.ConsoleSeparator = "  "
		enc = zapcore.NewConsoleEncoder(encoder)
	}
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(zapcore.AddSync(w)), level))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// libraryMessages are beginnings of what net/http writes to the standard log or to a server's
// ErrorLog. What follows each may quote a peer: an answer of WeChat, a header, the value of a
// panic.
var libraryMessages = [...]string{
	"Unsolicited response received on idle HTTP channel",
	"http: Accept error",
	// Of the https face: the caller does not trust its certificate. See docs/sdks.md.
	"remote error: tls: unknown certificate authority",
	"remote error: tls: bad certificate",
	"remote error: tls: unknown certificate",
	"http: TLS handshake error",
	"http: panic serving",
	"http: proxy error",
	"http: superfluous response.WriteHeader call",
	"http: response.WriteHeader on hijacked connection",
	"http: URL query contains semicolon",
	"httputil: ReverseProxy read error during body copy",
}

// libraryLog takes the messages of libraries that have no logger of this program. It logs which one
// of libraryMessages came, at most once a minute each, and never what the message quotes.
type libraryLog struct {
	log        *zap.Logger
	complaints observe.Complaints
}

func newLibraryLog(log *zap.Logger) *stdlog.Logger {
	return stdlog.New(&libraryLog{log: log}, "", 0)
}

func (l *libraryLog) Write(message []byte) (int, error) {
	text := "a message of a library, withheld because it may quote a peer"
	for _, known := range libraryMessages {
		if strings.Contains(string(message), known) {
			text = known
			break
		}
	}
	if l.complaints.Due(text, time.Now()) > 0 {
		l.log.Warn(text)
	}
	return len(message), nil
}
