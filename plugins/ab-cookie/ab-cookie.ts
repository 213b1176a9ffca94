// A/B test: a host's visitors are sent through one tunnel or the other, and the cookie says which. For an ingress.
//
// Who has no cookie yet goes by address, so that a page and its pictures come from the same side; the web application sets the
// cookie in its first answer.
import { cookie } from 'pointsman:routing/request-info@1.0.0';

type Test = { cookie: string; a: string; b: string };
type Request = { hostname: string; client: string };
type Verdict = { tag: 'pass' } | { tag: 'tunnel'; val: string };
type Answer = { verdict: Verdict; reuse?: { ttlMs: number; dependsOn: { client?: boolean; path?: boolean } } };

let tests = new Map<string, Test>();

export const lifecycle = {
  configure(config: string): void {
    tests = new Map();
    // The configuration is JSON, which every YAML file may be; lines that begin with # are comments.
    const json = config.replace(/^\s*#.*$/gm, '');
    for (const [host, test] of Object.entries(JSON.parse(json) as Record<string, Test>)) {
      for (const key of ['cookie', 'a', 'b'] as const) {
        // What is thrown has to be a string for the host to see it: the interface's error is one.
        if (typeof test[key] !== 'string') throw `${host}: ${key} is missing`;
      }
      tests.set(host, test);
    }
  },
};

export const ingress = {
  resolve(req: Request): Answer {
    const test = tests.get(req.hostname);
    if (!test) {
      // Nothing but the hostname counted: for a minute the host need not ask about this one again.
      return { verdict: { tag: 'pass' }, reuse: { ttlMs: 60_000, dependsOn: {} } };
    }
    const side = cookie(test.cookie);
    const b = side === 'b' || (side !== 'a' && hash(req.client) % 2 === 1);
    // A cookie is nothing that the host compares, so this answer is for this request.
    return { verdict: { tag: 'tunnel', val: b ? test.b : test.a } };
  },
};

// FNV-1a, 32 bits, mixed once more so that neighbouring addresses fall on both sides.
function hash(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return Math.imul(hash ^ (hash >>> 15), 0x85ebca6b) >>> 16;
}
