package apps_test

import (
	"testing"
	"testing/synctest"

	"github.com/wxtoken/sidecar/cmd/sidecar/internal/apps"
	"github.com/wxtoken/sidecar/pkg/secret"
	"github.com/wxtoken/sidecar/pkg/tokencache"
	"github.com/wxtoken/sidecar/pkg/tokencache/tokencachetest"
)

func third(id, kind string) apps.App {
	return apps.App{Key: tokencache.Key{App: id, Kind: kind}, ID: id, TokenParam: kind}
}

// The order in which a call for a platform itself names it: id, token, header, the only one.
func TestThePlatformThatACallMeans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := tokencachetest.New(t, 1, &tokencachetest.Upstream{})
		token := cluster.Replicas[0].MustGet(t).Value
		owner := third(tokencachetest.Key.App, apps.ComponentToken)
		owner.Key = tokencachetest.Key
		set := apps.New("", owner, third("wx2", apps.ComponentToken), third("ww1", apps.SuiteToken), third("wwp", apps.ProviderToken), agent("1", "hr"))
		for _, c := range []struct {
			kind string
			call apps.Call
			want string
		}{
			{apps.ComponentToken, apps.Call{ID: "wx2", Token: token}, "wx2"},
			{apps.ComponentToken, apps.Call{Token: token, Name: "wx2"}, owner.ID},
			{apps.ComponentToken, apps.Call{Name: "wx2"}, "wx2"},
			{apps.ComponentToken, apps.Call{Token: secret.New("foreign")}, ""}, // there are two
			{apps.ComponentToken, apps.Call{ID: "ww1"}, ""},
			{apps.SuiteToken, apps.Call{ID: "wx9"}, ""},
			{apps.SuiteToken, apps.Call{Token: token}, "ww1"},
			{apps.ProviderToken, apps.Call{Name: "ww1"}, "wwp"},
		} {
			got := ""
			if a := set.ThirdParty(c.kind, c.call, cluster.Replicas[0].Cache); a != nil {
				got = a.ID
			}
			if got != c.want {
				t.Errorf("%s %+v: got %q, want %q", c.kind, c.call, got, c.want)
			}
		}
	})
}

// A provider has no accounts: what follows its corpid is an agent, and no id alone means an account
// of it.
func TestAProviderHasNoAccounts(t *testing.T) {
	set := apps.New("", third("ww1", apps.ProviderToken), agent("1", "hr"))
	if a := set.Named("ww1:1"); a == nil || a.Agent != "1" {
		t.Errorf("the agent is %+v", a)
	}
	if a := set.Named("ww1:wwcorp"); a != nil {
		t.Errorf("%+v", a)
	}
	if a := set.Account("wwcorp"); a != nil {
		t.Errorf("%+v", a)
	}
	if agents := set.Agents("ww1"); len(agents) != 1 || agents[0].Agent != "1" {
		t.Errorf("the agents of the provider's corp: %+v", agents)
	}
	set = apps.New("", third("ww1", apps.ProviderToken), third("ww2", apps.SuiteToken))
	if a := set.Account("wwcorp"); a == nil || a.Key.App != "ww2:wwcorp" || !set.Named("ww2").HasAccount(a) || set.Named("ww1").HasAccount(a) {
		t.Errorf("beside a provider, the account of the only suite is %+v", a)
	}
	if !set.HasThirdParties() || apps.New("").HasThirdParties() {
		t.Error("the set does not know whether it has third parties")
	}
}
