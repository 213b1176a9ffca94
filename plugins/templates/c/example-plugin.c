// Hostname to tunnel, from lines `HOSTNAME: TUNNEL-ID`.
//
// The component model's canonical ABI by hand, which in C is little: a string comes as address and length, and records lie in memory
// as C's own structs do. The proxy makes a component of the module when it is loaded.
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(name)))

typedef struct {
  const char *at;
  size_t len;
} string;

// result<answer, string> of `resolve`, as far as it is used here.
typedef struct {
  uint8_t is_error;
  struct {
    uint8_t tag; // 0 is pass, 1 is a tunnel
    string tunnel;
    uint32_t unused;
  } verdict;
  uint8_t has_reuse;
  struct {
    uint32_t ttl_ms;
    uint8_t depends_on; // beside the hostname
  } reuse;
} answer;
_Static_assert(sizeof(answer) == 32, "as the interface has it");

static string config;

// How the proxy asks for memory.
EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old_size;
  if (!size) return (void *)align;
  void *at = realloc(old, size);
  if (!at) abort();
  return at;
}

// configure: func(config: string) -> result<_, string>
EXPORT("configure") void *configure(char *text, size_t len) {
  static struct { uint8_t is_error; string error; } configured;
  config = (string){text, len}; // kept
  return &configured;
}

// What is behind `host:` in the configuration; no address if there is no such line.
static string find(string host) {
  const char *line = config.at, *end = config.at + config.len;
  while (line < end) {
    const char *stop = memchr(line, '\n', end - line);
    if (!stop) stop = end;
    const char *value = line + host.len + 1;
    if (value < stop && !memcmp(line, host.at, host.len) && line[host.len] == ':') {
      while (value < stop && *value == ' ') value++;
      return (string){value, stop - value};
    }
    line = stop + 1;
  }
  return (string){0};
}

// resolve: func(req: request) -> result<answer, string>; the fields of `request` come one by one.
EXPORT("resolve") answer *resolve(char *host, size_t host_len, uint32_t protocol, char *client, size_t client_len,
                                  uint32_t client_port, char *service, size_t service_len) {
  (void)protocol, (void)client_port;
  static answer given;
  string tunnel = find((string){host, host_len});
  given = (answer){.verdict = {.tag = tunnel.at != NULL, .tunnel = tunnel},
                   // Nothing but the hostname counted: the proxy need not ask again for a minute.
                   .has_reuse = true,
                   .reuse = {.ttl_ms = 60000}};
  // Arguments are ours to free; an empty string has no address from `cabi_realloc`.
  if (host_len) free(host);
  if (client_len) free(client);
  if (service_len) free(service);
  return &given;
}
