# `make test` runs everything; it installs what it needs (Go, curl, nginx) where that is missing.

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
GOST_PEER := $(TARGET)/gost-peer
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

.PHONY: test tools

test: $(GOST_PEER)
	cargo test
	GOST_PEER=$(GOST_PEER) cargo test --test interop

tools:
	command -v curl >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y curl; }
	command -v go >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y golang-go; }
	command -v nginx /usr/sbin/nginx >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y nginx-light; }

# The reference program for the interoperability tests, from the Go module registry.
$(GOST_PEER): tests/interop/gost-peer/main.go tests/interop/gost-peer/go.mod tests/interop/gost-peer/go.sum | tools
	mkdir -p $(TARGET)
	cd tests/interop/gost-peer && go build -o $(GOST_PEER) .
