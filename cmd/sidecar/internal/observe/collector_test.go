package observe_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/observe"
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

func TestCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := observe.NewMetrics(prometheus.NewRegistry()).Collector(func() []tokencache.Status {
			return []tokencache.Status{
				{Key: shop, Version: 12, Known: true, Fresh: true, ExpiresIn: time.Hour, CommittedAt: time.Now().Add(-time.Hour),
					Fetches: tokencache.Allowance{Left: 9, Burst: 10}, Reports: tokencache.Allowance{Burst: 4}, Forced: tokencache.Allowance{Left: 2, Burst: 2}},
				{Key: card, InDoubt: true, Rejected: true, Backoff: 90 * time.Second, Class: tokencache.ClassQuota, Code: 45009, ForeignRefresher: true},
			}
		})
		const want = `
wxtoken_allowance_burst{allowance="fetches",app="wx1",kind="access_token"} 10
wxtoken_allowance_burst{allowance="forced",app="wx1",kind="access_token"} 2
wxtoken_allowance_burst{allowance="reports",app="wx1",kind="access_token"} 4
wxtoken_allowance_left{allowance="fetches",app="wx1",kind="access_token"} 9
wxtoken_allowance_left{allowance="forced",app="wx1",kind="access_token"} 2
wxtoken_allowance_left{allowance="reports",app="wx1",kind="access_token"} 0
wxtoken_credentials{kind="access_token",state="backing_off"} 0
wxtoken_credentials{kind="access_token",state="foreign_refresher"} 0
wxtoken_credentials{kind="access_token",state="fresh"} 1
wxtoken_credentials{kind="access_token",state="in_doubt"} 0
wxtoken_credentials{kind="access_token",state="missing"} 0
wxtoken_credentials{kind="access_token",state="rejected"} 0
wxtoken_credentials{kind="access_token",state="stale"} 0
wxtoken_credentials{kind="wx_card_ticket",state="backing_off"} 1
wxtoken_credentials{kind="wx_card_ticket",state="foreign_refresher"} 1
wxtoken_credentials{kind="wx_card_ticket",state="fresh"} 0
wxtoken_credentials{kind="wx_card_ticket",state="in_doubt"} 1
wxtoken_credentials{kind="wx_card_ticket",state="missing"} 1
wxtoken_credentials{kind="wx_card_ticket",state="rejected"} 1
wxtoken_credentials{kind="wx_card_ticket",state="stale"} 0
wxtoken_foreign_refresher_suspected{app="wx1",kind="access_token"} 0
wxtoken_foreign_refresher_suspected{app="wx1",kind="wx_card_ticket"} 1
wxtoken_token_backoff_info{app="wx1",class="quota",errcode="45009",kind="wx_card_ticket"} 1
wxtoken_token_backoff_seconds{app="wx1",kind="access_token"} 0
wxtoken_token_backoff_seconds{app="wx1",kind="wx_card_ticket"} 90
wxtoken_token_expiry_timestamp_seconds{app="wx1",kind="access_token"} 9.466884e+08
wxtoken_token_fresh{app="wx1",kind="access_token"} 1
wxtoken_token_fresh{app="wx1",kind="wx_card_ticket"} 0
wxtoken_token_in_doubt{app="wx1",kind="access_token"} 0
wxtoken_token_in_doubt{app="wx1",kind="wx_card_ticket"} 1
wxtoken_token_last_refresh_timestamp_seconds{app="wx1",kind="access_token"} 9.466812e+08
wxtoken_token_rejected{app="wx1",kind="access_token"} 0
wxtoken_token_rejected{app="wx1",kind="wx_card_ticket"} 1
wxtoken_token_version{app="wx1",kind="access_token"} 12
wxtoken_token_version{app="wx1",kind="wx_card_ticket"} 0
`
		if got := exposed(t, c); got != strings.TrimPrefix(want, "\n") {
			t.Errorf("got\n%s\nwant%s", got, want)
		}
	})
}

// Of many apps, each gauge shows the worst: an alert that is true of one of them is true of it.
func TestCollectorOfManyAppsShowsTheWorst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := observe.NewMetrics(prometheus.NewRegistry())
		m.SetMaxApps(2)
		now := time.Now()
		allowance := func(left, burst int) tokencache.Allowance { return tokencache.Allowance{Left: left, Burst: burst} }
		statuses := []tokencache.Status{
			{Key: tokencache.Key{App: "a", Kind: "access_token"}, Version: 1, Known: true, Fresh: true, ExpiresIn: 2 * time.Hour, CommittedAt: now,
				Fetches: allowance(400, 500), Reports: allowance(1, 4)},
			{Key: tokencache.Key{App: "b", Kind: "access_token"}, Version: 2, Known: true, Fresh: true, ExpiresIn: time.Hour, CommittedAt: now.Add(-time.Hour),
				InDoubt: true, Backoff: time.Minute, Class: tokencache.ClassQuota, Code: 45009, Fetches: allowance(50, 100), Reports: allowance(3, 4), Forced: allowance(2, 2)},
			{Key: tokencache.Key{App: "c", Kind: "access_token"}, Version: 3, Rejected: true, ForeignRefresher: true,
				Backoff: time.Second, Class: tokencache.ClassLocal, Code: 40164, Fetches: allowance(9, 10), Reports: allowance(4, 4)},
		}
		var keys []tokencache.Key
		for _, s := range statuses {
			keys = append(keys, s.Key)
		}
		c := m.Collector(func() []tokencache.Status { return statuses })
		m.Track(keys[:2]...)
		if got := exposed(t, c); strings.Contains(got, `"all"`) || !strings.Contains(got, `wxtoken_token_version{app="b"`) {
			t.Errorf("as many apps as may have their own series, and got\n%s", got)
		}
		m.Track(keys...)
		const want = `
wxtoken_allowance_burst{allowance="fetches",app="all",kind="access_token"} 100
wxtoken_allowance_burst{allowance="forced",app="all",kind="access_token"} 2
wxtoken_allowance_burst{allowance="reports",app="all",kind="access_token"} 4
wxtoken_allowance_left{allowance="fetches",app="all",kind="access_token"} 50
wxtoken_allowance_left{allowance="forced",app="all",kind="access_token"} 2
wxtoken_allowance_left{allowance="reports",app="all",kind="access_token"} 1
wxtoken_credentials{kind="access_token",state="backing_off"} 2
wxtoken_credentials{kind="access_token",state="foreign_refresher"} 1
wxtoken_credentials{kind="access_token",state="fresh"} 2
wxtoken_credentials{kind="access_token",state="in_doubt"} 1
wxtoken_credentials{kind="access_token",state="missing"} 1
wxtoken_credentials{kind="access_token",state="rejected"} 1
wxtoken_credentials{kind="access_token",state="stale"} 0
wxtoken_foreign_refresher_suspected{app="all",kind="access_token"} 1
wxtoken_token_backoff_info{app="all",class="local",errcode="40164",kind="access_token"} 1
wxtoken_token_backoff_info{app="all",class="quota",errcode="45009",kind="access_token"} 1
wxtoken_token_backoff_seconds{app="all",kind="access_token"} 60
wxtoken_token_expiry_timestamp_seconds{app="all",kind="access_token"} 9.466884e+08
wxtoken_token_fresh{app="all",kind="access_token"} 0
wxtoken_token_in_doubt{app="all",kind="access_token"} 1
wxtoken_token_last_refresh_timestamp_seconds{app="all",kind="access_token"} 9.466812e+08
wxtoken_token_rejected{app="all",kind="access_token"} 1
`
		for range 2 { // in the other order it is the same
			if got := exposed(t, c); got != strings.TrimPrefix(want, "\n") {
				t.Errorf("got\n%s\nwant%s", got, want)
			}
			slices.Reverse(statuses)
		}
	})
}

func TestRedisCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var health tokencache.Health
		c := observe.NewRedisCollector(func() tokencache.Health { return health })
		want := "wxtoken_redis_up 0\nwxtoken_subscription_up 0\n"
		if got := exposed(t, c); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		health = tokencache.Health{RedisUp: true, RedisAnswered: time.Now(), Subscribed: true}
		want = "wxtoken_redis_last_success_timestamp_seconds 9.466848e+08\nwxtoken_redis_up 1\nwxtoken_subscription_up 1\n"
		if got := exposed(t, c); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}
