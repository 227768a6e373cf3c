// Package rig is the real parts that the integration tests are made of: sidecar processes, Redis
// servers (plain, under Sentinel, a Cluster), the WeChat simulator on a socket, a third-party
// platform with the load balancer for its pushes, the network between a sidecar and Redis with its
// accidents, a steady load of callers of every kind, and a search for secrets in all that was
// printed or shown. Everything it starts ends with the test, and nothing listens but on 127.0.0.1.
//
//	func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }
//
//	server := rig.StartRedis(t)
//	c := rig.New(t, server, "WECHAT_ENDPOINT=token")
//	c.Linked = true // a Link to break between each sidecar and Redis
//	all := c.Add(3)
//	load := c.StartLoad(rig.LoadOptions{})
//	all[0].Link.BlackHole()
//	...
//	seen := load.Stop()
//
// Where redis-server is not installed the test is skipped, and fails with WXTOKEN_REQUIRE_REDIS=1.
// REDIS_SERVER names another server, such as valkey-server.
package rig
