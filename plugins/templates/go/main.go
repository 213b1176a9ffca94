// Hostname to tunnel, from lines `HOSTNAME: TUNNEL-ID`.
//
// The component model's canonical ABI by hand, so that the standard toolchain is all it takes: a string comes as address and length, the
// answer is a record in memory. The proxy makes a component of the module when it is loaded.
package main

import (
	"fmt"
	"strings"
	"unsafe"
)

// A string as the proxy sees it; addresses have 32 bits, Go's own pointers 64.
type text struct {
	at, len uint32
}

// result<answer, string> of `resolve`, as far as it is used here.
type answer struct {
	isError uint8
	verdict struct {
		tag    uint8 // 0 is pass, 1 is a tunnel
		tunnel text
		_      uint32
	}
	hasReuse uint8
	reuse    struct {
		ttlMs     uint32
		dependsOn uint8 // beside the hostname
	}
}

// result<_, string> of `configure`.
type configured struct {
	isError uint8
	error   text
}

var (
	tunnels map[string]string
	// What the proxy has put here for a call: only this keeps it from the garbage collector.
	given [][]byte
	// What was returned last, and what it points to.
	resolved answer
	done     configured
	failure  string
)

func main() {}

// How the proxy asks for memory. Nothing here is converted, so nothing grows.
//
//go:wasmexport cabi_realloc
func reallocate(old, oldSize, align, size uint32) uint32 {
	if size == 0 {
		return align
	}
	memory := make([]byte, size)
	given = append(given, memory)
	return address(unsafe.Pointer(&memory[0]))
}

func address(pointer unsafe.Pointer) uint32 {
	return uint32(uintptr(pointer))
}

func pass(value string) text {
	return text{address(unsafe.Pointer(unsafe.StringData(value))), uint32(len(value))}
}

// configure: func(config: string) -> result<_, string>
//
//go:wasmexport configure
func configure(config *byte, length uint32) unsafe.Pointer {
	// A copy, for the map keeps pieces of it.
	lines := strings.Split(strings.Clone(unsafe.String(config, length)), "\n")
	given = given[:0]
	tunnels, done = map[string]string{}, configured{}
	for _, line := range lines {
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		host, tunnel, found := strings.Cut(line, ":")
		if !found {
			failure = fmt.Sprintf("expected HOSTNAME: TUNNEL-ID, found %q", line)
			done = configured{1, pass(failure)}
			break
		}
		tunnels[strings.TrimSpace(host)] = strings.TrimSpace(tunnel)
	}
	return unsafe.Pointer(&done)
}

// resolve: func(req: request) -> result<answer, string>; the fields of `request` come one by one.
//
//go:wasmexport resolve
func resolve(host *byte, hostLen, protocol uint32, client *byte, clientLen, clientPort uint32, service *byte, serviceLen uint32) unsafe.Pointer {
	tunnel, found := tunnels[unsafe.String(host, hostLen)]
	given = given[:0]
	resolved = answer{hasReuse: 1}
	// Nothing but the hostname counted: the proxy need not ask again for a minute.
	resolved.reuse.ttlMs = 60_000
	if found {
		resolved.verdict.tag, resolved.verdict.tunnel = 1, pass(tunnel)
	}
	return unsafe.Pointer(&resolved)
}
