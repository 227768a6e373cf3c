package main

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/config"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/vault"
	"github.com/wxtoken/sidecar/pkg/vault/vaulttest"
)

const suiteKeys = `
callback_listen: unix:DIR/c.sock
tls_listen: 127.0.0.1:0
tls_trust_dir: DIR
vault: {key_file: DIR/vault, volatile: true}
platforms:
  - {id: ww1, kind: wecom_suite, corpid: wwprovider, secret_file: DIR/secret, token_file: DIR/secret, aes_key_file: DIR/aes}
`

// A mistake in the configuration is found before. This is what fails when the parts are made: each
// time after some of them.
func TestAStartThatFailsIsExplainedAndHoldsNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	inUse := taken.Addr().String()

	// A vault whose ticket is sealed with a key that this sidecar does not have.
	foreign := miniredis.RunT(t).Addr()
	client := redis.NewClient(&redis.Options{Addr: foreign, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	t.Cleanup(func() { _ = client.Close() })
	sealed := vault.New(vault.NewRedis(client, config.DefaultNamespace), vaulttest.Keys(t, vaulttest.OtherKey))
	if _, err := sealed.Save(t.Context(), vault.Record{Platform: "ww1", ID: vault.Ticket, State: vault.StateActive, Secret: secret.New("CANARY-ticket")}); err != nil {
		t.Fatal(err)
	}

	for variable, c := range map[string]struct{ value, want string }{
		"WXTOKEN_LISTEN":          {inUse, "address already in use (another sidecar? choose another address)"},
		"WXTOKEN_OPS_LISTEN":      {inUse, "address already in use"},
		"WXTOKEN_CALLBACK_LISTEN": {inUse, "address already in use"},
		"WXTOKEN_TLS_LISTEN":      {inUse, "address already in use"},
		"REDIS_URL":               {"redis://" + foreign, "platform ww1: vault.key_file: "},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.write(t, "vault", vaulttest.Key)
			r.write(t, "aes", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")
			kept, err := os.ReadFile(r.config)
			if err != nil {
				t.Fatal(err)
			}
			r.write(t, "config.yaml", string(kept)+strings.ReplaceAll(suiteKeys, "DIR", r.dir))

			r.env = map[string]string{variable: c.value}
			r.want(t, 1, "", c.want, "serve", "--config", r.config)
			r.env = nil
			r.start(t) // on the same sockets
			waitFor(t, "it serves", func() bool { code, _, _ := r.ask(t, "get", "shop"); return code == 0 || !r.running() })
		})
	}
}
