// Hostname to tunnel, from lines `HOSTNAME: TUNNEL-ID`.

let tunnels = new Map();

export const lifecycle = {
  configure(config) {
    tunnels = new Map();
    for (const line of config.split('\n')) {
      if (!line.trim() || line.startsWith('#')) continue;
      const colon = line.indexOf(':');
      // What is thrown has to be a string for the proxy to see it: the interface's error is one.
      if (colon < 0) throw `expected HOSTNAME: TUNNEL-ID, found ${line}`;
      tunnels.set(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
    }
  },
};

export const ingress = {
  resolve(req) {
    const tunnel = tunnels.get(req.hostname);
    return {
      verdict: tunnel ? { tag: 'tunnel', val: tunnel } : { tag: 'pass' },
      // Nothing but the hostname counted: the proxy need not ask again for a minute.
      reuse: { ttlMs: 60_000, dependsOn: {} },
    };
  },
};
