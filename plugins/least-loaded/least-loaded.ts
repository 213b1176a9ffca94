// Least loaded: the healthy node with the fewest open connections for its weight. Among equals they take turns, and the turn is
// a counter of the host, so that all instances of the plugin share it. For a hop or forwarder.
//
// AssemblyScript has no bindings generator, so this file speaks the component model's canonical ABI itself. That is less than it
// sounds: numbers are passed as they are, a string or list as address and length, and what is larger than one number is
// returned as the address of a record. The host sees by the name `select` what this module is, and makes a component of it.
//
// The answer depends on the load of this moment. It carries no permission to be reused.

@external("pointsman:routing/host@1.0.0", "count")
declare function count(key: usize, keyLen: usize, add: i64): i64;

// A node in memory: name (address, length), weight, active, failures.
const NODE_SIZE = 20;
const WEIGHT = 8;
const ACTIVE = 12;
const FAILURES = 16;

// The answer, result<record { verdict, option<reuse> }, string>, and where its parts are. It stays until the next call.
const ANSWER = memory.data(32, 4);
const VERDICT = 4;
const INDEX = 8;
const REUSE = 20;
const VERDICT_PASS: u8 = 0;
const VERDICT_NODE: u8 = 1;

const TURN = String.UTF8.encode("turn");

// Strings and lists are put here by the host before a call. It is the plain heap, of which the garbage collector knows nothing:
// `select` gives it back.
export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  if (!size) return align;
  return old ? heap.realloc(old, size) : heap.alloc(size);
}

function release(address: usize, length: usize): void {
  if (length) heap.free(address);
}

export function select(
  hostname: usize, hostnameLen: usize, protocol: i32, client: usize, clientLen: usize, clientPort: i32,
  service: usize, serviceLen: usize, nodes: usize, nodesLen: i32,
): usize {
  const chosen = leastLoaded(nodes, nodesLen);

  release(hostname, hostnameLen);
  release(client, clientLen);
  release(service, serviceLen);
  for (let i = 0; i < nodesLen; i++) {
    const name = nodes + i * NODE_SIZE;
    release(load<usize>(name), load<usize>(name, 4));
  }
  release(nodes, nodesLen);

  store<u8>(ANSWER, 0); // ok
  store<u8>(ANSWER, chosen < 0 ? VERDICT_PASS : VERDICT_NODE, VERDICT);
  store<i32>(ANSWER, chosen, INDEX);
  store<u8>(ANSWER, 0, REUSE); // none
  return ANSWER;
}

// Index of the node, -1 when none is healthy: then the hop's own strategy decides.
function leastLoaded(nodes: usize, length: i32): i32 {
  let best = -1;
  let equals = 0;
  for (let i = 0; i < length; i++) {
    const node = nodes + i * NODE_SIZE;
    if (load<u32>(node, FAILURES)) continue;
    const order = best < 0 ? -1 : compare(node, nodes + best * NODE_SIZE);
    if (order < 0) {
      best = i;
      equals = 1;
    } else if (order == 0) {
      equals++;
    }
  }
  if (equals < 2) return best;

  let turn = <i32>(count(changetype<usize>(TURN), TURN.byteLength, 1) % equals);
  let i = best;
  while (turn > 0) {
    const node = nodes + ++i * NODE_SIZE;
    if (!load<u32>(node, FAILURES) && !compare(node, nodes + best * NODE_SIZE)) turn--;
  }
  return i;
}

// Which of two has less to do for its weight, below 0: the first. Multiplied, not divided, so that nothing is rounded.
function compare(a: usize, b: usize): i32 {
  const left = <u64>load<u32>(a, ACTIVE) * load<u32>(b, WEIGHT);
  const right = <u64>load<u32>(b, ACTIVE) * load<u32>(a, WEIGHT);
  return left < right ? -1 : i32(left > right);
}
