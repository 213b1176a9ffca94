// Hostname to tunnel, from lines `HOSTNAME: TUNNEL-ID`.
//
// AssemblyScript has no bindings generator, so this file speaks the component model's canonical ABI itself: a string comes as address
// and length, the answer is a record in memory. The proxy makes a component of the module when it is loaded.

const tunnels = new Map<string, string>();

// The answers, result<answer, string> of `resolve` and result<_, string> of `configure`; each stays until the next call.
const ANSWER = memory.data(32, 4);
const CONFIGURED = memory.data(12, 4);
const VERDICT = 4; // 0 is pass, 1 is a tunnel: its address and length behind it
const REUSE = 20; // 1: there is one: milliseconds, and what the answer depends on beside the hostname

// What the answer points to.
let answered: ArrayBuffer = new ArrayBuffer(0);

// The proxy puts strings here before a call. It is the plain heap, of which the garbage collector knows nothing.
export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  if (!size) return align;
  return old ? heap.realloc(old, size) : heap.alloc(size);
}

function take(address: usize, length: usize): string {
  const text = String.UTF8.decodeUnsafe(address, length);
  if (length) heap.free(address);
  return text;
}

export function configure(config: usize, length: usize): usize {
  tunnels.clear();
  const lines = take(config, length).split("\n");
  memory.fill(CONFIGURED, 0, 12);
  for (let i = 0; i < lines.length; i++) {
    const colon = lines[i].indexOf(":");
    if (!lines[i].trim().length || lines[i].startsWith("#")) continue;
    if (colon < 0) {
      answered = String.UTF8.encode("expected HOSTNAME: TUNNEL-ID, found " + lines[i]);
      store<u8>(CONFIGURED, 1); // error
      store<usize>(CONFIGURED, changetype<usize>(answered), 4);
      store<i32>(CONFIGURED, answered.byteLength, 8);
      break;
    }
    tunnels.set(lines[i].substring(0, colon).trim(), lines[i].substring(colon + 1).trim());
  }
  return CONFIGURED;
}

export function resolve(
  hostname: usize, hostnameLen: usize, protocol: i32, client: usize, clientLen: usize, clientPort: i32,
  service: usize, serviceLen: usize,
): usize {
  const host = take(hostname, hostnameLen);
  take(client, clientLen);
  take(service, serviceLen);
  memory.fill(ANSWER, 0, 32);
  if (tunnels.has(host)) {
    answered = String.UTF8.encode(tunnels.get(host));
    store<u8>(ANSWER, 1, VERDICT);
    store<usize>(ANSWER, changetype<usize>(answered), VERDICT + 4);
    store<i32>(ANSWER, answered.byteLength, VERDICT + 8);
  }
  // Nothing but the hostname counted: the proxy need not ask again for a minute.
  store<u8>(ANSWER, 1, REUSE);
  store<u32>(ANSWER, 60000, REUSE + 4);
  return ANSWER;
}
