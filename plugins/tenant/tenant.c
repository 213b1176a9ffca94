// Tenant: the first label of the hostname names the tenant, and each has a tunnel of its own: acme.apps.example.com goes where
// acme's tunnel is. For an ingress.
//
// Ownership, which is what C makes one think of: arguments are ours to free, and strings in an answer are freed by the caller, so
// they have to be copies from malloc.
#include "gen/ingress_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// One hour. The answer depends on the hostname only, and the cache is emptied when the configuration changes.
#define REUSE_MS (60 * 60 * 1000)

// Piece of the configuration's text, which is kept.
typedef struct {
  const char *at;
  size_t len;
} text;

typedef struct {
  text name;
  text tunnel;
} tenant;

static text domain; // with its leading dot
static tenant *tenants; // sorted by name
static size_t count;

static int compare(text a, text b) {
  int order = memcmp(a.at, b.at, a.len < b.len ? a.len : b.len);
  return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_name(const void *a, const void *b) {
  return compare(((const tenant *)a)->name, ((const tenant *)b)->name);
}

static text trim(text t) {
  while (t.len && strchr(" \t\r", t.at[0])) t.at++, t.len--;
  while (t.len && strchr(" \t\r", t.at[t.len - 1])) t.len--;
  return t;
}

// Takes what is in front of `end`, or all, off the text.
static text take(text *from, char end) {
  const char *found = from->len ? memchr(from->at, end, from->len) : NULL;
  text taken = {from->at, found ? (size_t)(found - from->at) : from->len};
  size_t used = taken.len + (found != NULL);
  from->at += used;
  from->len -= used;
  return taken;
}

// Lines `NAME: TUNNEL`, and one `.domain: SUFFIX`, which no tenant can be called.
bool exports_pointsman_routing_lifecycle_configure(ingress_plugin_string_t *config, ingress_plugin_string_t *err) {
  text rest = {(const char *)config->ptr, config->len}; // never freed: the table points into it
  size_t lines = 1;
  for (size_t i = 0; i < rest.len; i++) lines += rest.at[i] == '\n';
  tenants = calloc(lines, sizeof *tenants);
  if (!tenants) abort();
  while (rest.len) {
    text line = take(&rest, '\n');
    line = trim(take(&line, '#'));
    if (!line.len) continue;
    text name = trim(take(&line, ':')), value = trim(line);
    if (!name.len || !value.len) {
      ingress_plugin_string_dup(err, "a line is not `TENANT: TUNNEL` or `.domain: SUFFIX`");
      return false;
    }
    if (name.len == 7 && !memcmp(name.at, ".domain", 7)) domain = value;
    else tenants[count++] = (tenant){name, value};
  }
  if (!domain.len || domain.at[0] != '.') {
    ingress_plugin_string_dup(err, "no `.domain: SUFFIX`, or its suffix does not begin with a dot");
    return false;
  }
  qsort(tenants, count, sizeof *tenants, by_name);
  printf("%zu tenants of %.*s\n", count, (int)domain.len, domain.at); // to the host's log
  return true;
}

// The tenant's label, if the hostname is a label in front of the domain; empty if not.
static text label(text hostname) {
  if (hostname.len <= domain.len) return (text){0};
  text label = {hostname.at, hostname.len - domain.len};
  if (memcmp(hostname.at + label.len, domain.at, domain.len) || memchr(label.at, '.', label.len)) return (text){0};
  return label;
}

bool exports_pointsman_routing_ingress_resolve(exports_pointsman_routing_ingress_request_t *req,
                                               exports_pointsman_routing_ingress_answer_t *answer,
                                               ingress_plugin_string_t *err) {
  (void)err;
  tenant key = {.name = label((text){(const char *)req->hostname.ptr, req->hostname.len})};
  if (!key.name.len) {
    answer->verdict.tag = EXPORTS_POINTSMAN_ROUTING_INGRESS_VERDICT_PASS;
  } else {
    tenant *found = bsearch(&key, tenants, count, sizeof *tenants, by_name);
    if (found) {
      answer->verdict.tag = EXPORTS_POINTSMAN_ROUTING_INGRESS_VERDICT_TUNNEL;
      ingress_plugin_string_dup_n(&answer->verdict.val.tunnel, found->tunnel.at, found->tunnel.len);
    } else {
      answer->verdict.tag = EXPORTS_POINTSMAN_ROUTING_INGRESS_VERDICT_REFUSE;
      answer->verdict.val.refuse.status = 404;
      ingress_plugin_string_dup(&answer->verdict.val.refuse.reason, "no such tenant");
    }
  }
  answer->reuse.is_some = true;
  answer->reuse.val = (pointsman_routing_types_reuse_t){.ttl_ms = REUSE_MS, .depends_on = 0};
  exports_pointsman_routing_ingress_request_free(req);
  return true;
}
