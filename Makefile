# Everything that CI does is a target here.

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
FUZZTIME    ?= 60s
SOAKTIME    ?= 10m
FAULTS      ?= all
FAULTS_AT_ONCE ?= 4
FAULTS_RACED ?= 0
HISTORY_COUNT ?= 3000
SDK_TESTS   ?= ^Test(EachSDK|EightProcesses)
# Of the random histories, but for make soak: the same ones each time.
SEED        ?= 20261126

# What is deployed has a module of its own, so that the program's stays free of what that takes.
MODULES     := . deploy
# So has an app with an SDK of others, whose requirements are not ours to mend.
SDK_MODULES := integration/sdk/go
# All of Kubernetes is behind deploy/cluster: make cluster, which builds it, checks that module too.
each        = @set -e; for module in $(MODULES) $(2); do (set -x; cd $$module && $(1)); done

# The image: its name, and its version if git is not to say it.
IMAGE       ?= ghcr.io/wxtoken/sidecar
VERSION     ?=
# sql: the program with the drivers of PostgreSQL and MySQL, and -sql behind its version.
TAGS        ?=
image_tool  = cd deploy && $(GO) run ./image -name '$(IMAGE)' -version '$(VERSION)' -tags '$(TAGS)' -max-size 10000000

.PHONY: run build shape words image image-check figures test race integration redis faults sdks histories platforms fleet soak model manifests cluster check fmt vet lint tidy vuln fuzz bench clean

run: ## a sidecar on an embedded Redis and a simulated WeChat, or on those that the environment names
	$(GO) run -tags dev ./cmd/sidecar --dev

build: ## the program, as bin/sidecar
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/sidecar ./cmd/sidecar

image: ## dist/wxtoken-VERSION.oci.tar for amd64 and arm64, and its SBOMs: no Docker needed, the same bytes each time; TAGS=sql has the drivers of databases
	$(image_tool) build

image-check: image ## runs the program from the image, and builds the image again to compare
	$(image_tool) check

figures: image ## what it costs: memory, CPU, start, size; beside a bare HTTP server in the same run
	$(GO) run ./integration/figures

# Vet is a part of make check. The timeout is for a machine that does much else.
TEST := WXTOKEN_SEED=$(SEED) $(GO) test -vet=off -timeout 60m -parallel 6
# The one that takes the longest begins, so that it is not alone at the end.
PACKAGES := ./pkg/tokencache ./...

test: ## everything that is quick; skips the tests whose tools are not installed, and names those tools
	@PATH="$$PATH:/usr/sbin:$$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')"; \
	for tool in $${REDIS_SERVER:-redis-server} node npm mvn javac python3 chromium curl postgres mariadbd; do \
		command -v $$tool >/dev/null || echo "$$tool is not installed: the tests that need it are skipped"; done
	$(TEST) $(PACKAGES)

race: ## the same with the race detector, but for the histories below and the SDKs, which are processes of others
	WXTOKEN_HISTORIES=6 $(TEST) -race -skip '$(HISTORIES)|$(PLATFORM_HISTORIES)|$(LONG_DAYS)|^TestTheHotRead|^Test(EachSDK|EightProcesses)' $(PACKAGES)

integration: ## only the tests with real processes and a real redis-server, verbosely
	WXTOKEN_REQUIRE_REDIS=1 WXTOKEN_REQUIRE_SDK=1 WXTOKEN_RACED_SIDECAR=1 $(TEST) -race -count 1 -v ./integration/...

REDIS_PACKAGES := ./pkg/tokencache/ ./pkg/lock/ ./cmd/sidecar/internal/doctor/ ./cmd/sidecar/internal/redisclient/
REDIS_ROWS     := Redis|Sentinel|Cluster|sidecar loses|events|connections cut|lock key|garbage in the meta|journal is of another|reply of

redis: ## what a Redis decides: the tests that start one, and the rows of the fault suite; REDIS_SERVER=/path names another server
	WXTOKEN_REQUIRE_REDIS=1 $(TEST) -count 1 $(REDIS_PACKAGES)
	$(MAKE) faults FAULTS='$(REDIS_ROWS)'

# What make test does of it in 15 s, and 8 processes at once of each SDK by itself.
sdks: ## the SDKs of others, unmodified, on real processes and a real redis-server
	WXTOKEN_REQUIRE_REDIS=1 WXTOKEN_REQUIRE_SDK=1 WXTOKEN_SDK_CROWDS=1 $(TEST) -count 1 -v -run '$(SDK_TESTS)' ./integration/

# They allocate much that dies at once. A failure prints the command that plays it again, and is made smaller.
RANDOM := GOGC=800 $(GO) test -count 1 -v -run '^TestRandomHistoriesKeepTheInvariants$$' ./pkg/tokencache/

# Virtual time, up to weeks of it, and a thousand dead tokens: the race detector finds nothing in them that it does not
# find in the other tests. WXTOKEN_LONG=1 makes them long; make test has a shorter form of each.
HISTORIES := ^Test(AWeek|AHundred|UpstreamCallsStay|KillsAreNotSeen|DropInLeaves|TwoDaysCost|AMillion|AThousandReplicas)
# Those of a platform, in which little is concurrent that the other tests of it lack.
PLATFORM_HISTORIES := ^Test(Days|AnOutageEndsNo|AStampede|AnEmptiedVault|AReplicaThatIsKilled|OfTicketsInAnyOrder|AfterEventsInAnyOrder|AWithdrawalIsKnown|ForgedPushesCost|GarbageIDs)

# Days of virtual time, thousands of credentials, long loops of one goroutine: what takes minutes under the race detector,
# and has nothing new for it.
LONG_DAYS := ^Test(MetricsAreNeverLonger|MetricsFitInto|AChangedPushIsNot|ManyCredentialsAre|TheJournalHasEvery|AStepBackOfRedisClock|FalseAlarmsCost|ASlowRedisIsNoOutage|GarbageInRedisIsReplaced)

# The random ones are the same each time, so that a change is judged by its own merits; make soak looks for new ones.
histories: ## the long histories, and 3000 random ones of a cluster and its faults
	WXTOKEN_LONG=1 $(TEST) -run '$(HISTORIES)|^TestAThousand' -skip '^TestAThousandReplicas' ./integration/ ./pkg/tokencache/ ./cmd/sidecar/internal/proxy/ ./cmd/sidecar/internal/source/ ./cmd/sidecar/internal/api/
	WXTOKEN_SEED=$(SEED) WXTOKEN_HISTORIES=$(HISTORY_COUNT) $(RANDOM) -timeout 20m

# make test has a smaller form of each. The day of 5000 accounts on 50 replicas alone takes half an hour of one core.
platforms: ## the histories of a third-party platform at full size: thousands of accounts, dozens of replicas; it takes an hour
	WXTOKEN_LONG=1 GOGC=400 $(TEST) -timeout 4h -count 1 -v -run '$(PLATFORM_HISTORIES)' ./cmd/sidecar/internal/platform/

# make test has a smaller form of it.
fleet: ## 1000 replicas with 100 apps for an hour: what they cost Redis, and how late they are; some 5 minutes
	WXTOKEN_FLEET=1000x100 GOGC=300 $(GO) test -count 1 -v -timeout 60m -run '^TestAThousandReplicas$$' ./pkg/tokencache/

soak: ## as many random histories as SOAKTIME has room for
	WXTOKEN_SOAK=$(SOAKTIME) $(RANDOM) -timeout 0

# FAULTS_RACED=1 gives the sidecars the race detector, too: that takes twice as long.
faults: ## every promise about faults, on real processes, with a table of what was promised and what was seen
	WXTOKEN_REQUIRE_REDIS=1 WXTOKEN_RACED_SIDECAR=$(FAULTS_RACED) $(GO) test -race -timeout 45m -count 1 -parallel $(FAULTS_AT_ONCE) -v ./integration/faults -args -faults '$(FAULTS)'

model: ## the refresh protocol, checked exhaustively by spin; each guard taken out must be missed; MODEL='regexp' for some variants
	$(GO) run ./integration/model $(if $(MODEL),-only '$(MODEL)')

# In a module of its own: what Kubernetes, kustomize and Prometheus bring with them is for these tests only.
# Without the cache of results, which does not see a change in the files of the other module.
manifests: ## deploy: rendered, decoded, held against policies; alerts and dashboard against the program's metrics
	cd deploy && $(GO) test -timeout 10m -count 1 ./...

# The second step needs root on Linux. Where the machine does not permit it, a line says what is missing, and
# WXTOKEN_REQUIRE_NODE=1 makes that a failure. The first run builds Kubernetes: 13 minutes of CPU time, with the node some 25.
cluster: ## the manifests and the injection on a real kube-apiserver, then the examples on a real node with kubelet and containerd
	cd deploy/cluster && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && $(GO) run . && $(GO) test -timeout 3h -count 1 -v -run '^TestNode$$' .

check: fmt vet words lint tidy vuln ## everything about the code that is no test

fmt:
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi

vet:
	$(call each,$(GO) vet ./...,$(SDK_MODULES))
	$(GO) vet -tags dev,sql ./cmd/sidecar ./cmd/sidecar/internal/vaultstore

# Words that hide who acts: the subject of a sentence is the caller, this replica, the lease holder, Redis or WeChat.
words:
	@! git grep -nEw 'nobody|somebody|whoever|whom|stands|heard' -- '*.go' '*.lua'

shape: ## how readable the code is, in figures, beside their goals
	$(GO) run ./integration/shape

lint:
	$(call each,$(GO) run $(STATICCHECK) ./...,$(SDK_MODULES))

tidy:
	$(call each,$(GO) mod tidy -diff && $(GO) mod verify,$(SDK_MODULES))

# Passes only if the vulnerability database was asked and knows of nothing. WXTOKEN_VULN_OFFLINE=1 excuses a machine that
# cannot reach it, loudly; it excuses nothing that was found.
vuln:
	@out=$$(for module in $(MODULES); do (cd $$module && $(GO) run $(GOVULNCHECK) ./...) || exit; done 2>&1); status=$$?; \
	echo "$$out"; \
	if [ $$status -eq 0 ] || [ "$$WXTOKEN_VULN_OFFLINE" != 1 ] || echo "$$out" | grep -q '^Vulnerability #'; then exit $$status; fi; \
	if echo "$$out" | grep -Eq 'fetching vulnerabilities|vuln\.go\.dev|no such host|connection refused|i/o timeout'; then \
		echo "WARNING: NO VULNERABILITY WAS LOOKED FOR: the database cannot be reached, and WXTOKEN_VULN_OFFLINE=1 excuses that"; \
	else exit $$status; fi

fuzz: ## each fuzz target for FUZZTIME
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$package; \
		done; done

bench: ## the benchmarks; those of the HTTP face print their cost as a ratio to a bare handler
	$(GO) test -run '^$$' -bench . -benchmem ./pkg/tokencache/ ./cmd/sidecar/internal/api/ ./cmd/sidecar/internal/proxy/

clean:
	rm -rf bin dist
