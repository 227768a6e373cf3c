// Command simulator is a simulated WeChat and an embedded Redis on addresses of their own, for
// tests whose sidecars are in other network namespaces: the pods of make cluster. The simulator's
// administration is on its address, too, under /sim/, without any access control.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

func main() {
	var app wechattest.App
	flag.StringVar(&app.ID, "appid", "", "`appid` of the one app")
	flag.StringVar(&app.Secret, "secret", "", "its `AppSecret`")
	upstream := flag.String("wechat", "127.0.0.1:8090", "`address` of WeChat")
	store := flag.String("redis", "127.0.0.1:6379", "`address` of Redis")
	flag.Parse()
	if err := serve(app, *upstream, *store); err != nil {
		fmt.Fprintln(os.Stderr, "simulator:", err)
		os.Exit(1)
	}
}

func serve(app wechattest.App, upstream, store string) error {
	redis := miniredis.NewMiniRedis()
	redis.ClockTTL(true)
	if err := redis.StartAddr(store); err != nil {
		return err
	}
	defer redis.Close()
	sim := wechattest.New(app)
	mux := http.NewServeMux()
	mux.Handle("/", sim)
	mux.Handle("/sim/", sim.Admin())
	server := &http.Server{Addr: upstream, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}
