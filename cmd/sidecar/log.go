package main

import (
	"io"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
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
