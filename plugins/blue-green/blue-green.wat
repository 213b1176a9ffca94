;; Blue/green: of two or more nodes one is live and gets everything. When it fails the next healthy one becomes live, and stays:
;; the old one coming back changes nothing. Which is live is a key in the plugin's store, `live`, so all instances agree, and
;; replacing the plugin does not forget it. Another name in the configuration, `live: NODE`, switches. For a hop or forwarder.
;;
;; A core module, written by hand: it exports `configure` and `select`, and the host makes a component of it. Strings and lists come as address and
;; length, numbers as they are; what is larger than one number goes through memory. `wasm-tools component wit` and the canonical ABI's
;; explainer tell the layouts.
(module
  ;; get: func(key: string) -> option<list<u8>>
  (import "pointsman:routing/store@1.0.0" "get" (func $get (param $key i32) (param $key-len i32) (param $result i32)))
  ;; set: func(key: string, value: list<u8>, ttl-ms: option<u32>) -> result<_, failure>
  (import "pointsman:routing/store@1.0.0" "set"
    (func $set (param $key i32) (param $key-len i32) (param $value i32) (param $value-len i32)
      (param $has-ttl i32) (param $ttl i32) (param $result i32)))

  ;; 0: the keys, of which the first is the configuration's too. 16: what `get` and `set` return. 32: the answer, 32 bytes. 64: an
  ;; error's text. From 96: what the host puts there for a call.
  (memory (export "memory") 1)
  (data (i32.const 0) "live: ")
  (data (i32.const 8) "switched")
  (data (i32.const 64) "expected a line `live: NODE`")
  (global $free (mut i32) (i32.const 96))

  ;; configure: func(config: string) -> result<_, string>
  ;;
  ;; Lines that are empty or begin with # say nothing. The answer: ok or error 0, the error's text 4 (address and length).
  (func (export "configure") (param $line i32) (param $len i32) (result i32)
    (local $end i32) (local $stop i32) (local $name i32) (local $first i32)
    (local.set $end (i32.add (local.get $line) (local.get $len)))
    (memory.fill (i32.const 32) (i32.const 0) (i32.const 32))
    (block $wrong
      (loop $next
        (if (i32.ge_u (local.get $line) (local.get $end)) (then (return (i32.const 32))))
        (local.set $stop (call $until (local.get $line) (local.get $end) (i32.const 10)))
        (local.set $name (i32.add (local.get $line) (i32.const 6)))
        (if (i32.lt_u (local.get $name) (local.get $stop))
          (then
            (if (call $equal (local.get $line) (i32.const 6) (i32.const 0) (i32.const 6))
              (then
                (call $switch (local.get $name)
                  (i32.sub (call $until (local.get $name) (local.get $stop) (i32.const 32)) (local.get $name)))
                (local.set $line (local.get $stop))))))
        (if (i32.lt_u (local.get $line) (local.get $stop))
          (then
            (local.set $first (i32.load8_u (local.get $line)))
            ;; # and the carriage return of an empty line
            (br_if $wrong (i32.and (i32.ne (local.get $first) (i32.const 35)) (i32.ne (local.get $first) (i32.const 13))))))
        (local.set $line (i32.add (local.get $stop) (i32.const 1)))
        (br $next)))
    (i32.store8 (i32.const 32) (i32.const 1))
    (i32.store offset=4 (i32.const 32) (i32.const 64))
    (i32.store offset=8 (i32.const 32) (i32.const 28))
    (i32.const 32))

  ;; Makes a node live, once: every new instance is configured, and the name may be that of a node which has failed since.
  (func $switch (param $name i32) (param $len i32)
    (call $get (i32.const 8) (i32.const 8) (i32.const 16))
    (if (i32.load8_u (i32.const 16))
      (then
        (if (call $equal (local.get $name) (local.get $len) (i32.load (i32.const 20)) (i32.load (i32.const 24)))
          (then (return)))))
    (call $set (i32.const 8) (i32.const 8) (local.get $name) (local.get $len) (i32.const 0) (i32.const 0) (i32.const 16))
    (call $set (i32.const 0) (i32.const 4) (local.get $name) (local.get $len) (i32.const 0) (i32.const 0) (i32.const 16)))

  ;; Where the first byte is, from `at` on, that is not above `most`: 10 ends a line, 32 a word.
  (func $until (param $at i32) (param $end i32) (param $most i32) (result i32)
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (local.get $end))))
      (if (i32.le_u (i32.load8_u (local.get $at)) (local.get $most)) (then (return (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; select: func(req: request, nodes: list<node>) -> result<answer, string>
  ;;
  ;; The request's fields come one by one, in their order. A node has 20 bytes: name 0 (address and length), weight 8, active 12,
  ;; failures 16. The answer: ok or error 0, verdict 4 (0 is pass, 1 is a node), index of the node 8, reuse 20 (0 is none).
  (func (export "select")
    (param $hostname i32) (param $hostname-len i32) (param $protocol i32) (param $client i32) (param $client-len i32)
    (param $client-port i32) (param $service i32) (param $service-len i32) (param $nodes i32) (param $nodes-len i32)
    (result i32)
    (local $i i32) (local $node i32)
    (memory.fill (i32.const 32) (i32.const 0) (i32.const 32))
    (call $get (i32.const 0) (i32.const 4) (i32.const 16))
    (local.set $i (call $live (local.get $nodes) (local.get $nodes-len)))
    (if (i32.lt_s (local.get $i) (i32.const 0))
      (then
        (local.set $i (call $healthy (local.get $nodes) (local.get $nodes-len)))
        ;; none is healthy: pass, so the hop's own strategy chooses
        (if (i32.lt_s (local.get $i) (i32.const 0)) (then (return (i32.const 32))))
        ;; this one is live from now on; if the store should not take it, it is chosen for this request all the same
        (local.set $node (call $node (local.get $nodes) (local.get $i)))
        (call $set (i32.const 0) (i32.const 4) (i32.load (local.get $node)) (i32.load offset=4 (local.get $node))
          (i32.const 0) (i32.const 0) (i32.const 16))))
    (i32.store8 offset=4 (i32.const 32) (i32.const 1))
    (i32.store offset=8 (i32.const 32) (local.get $i))
    (i32.const 32))

  ;; Called when the host has read the answer: what it had put into memory is no longer needed.
  (func (export "cabi_post_select") (param $answer i32)
    (global.set $free (i32.const 96)))

  (func $node (param $nodes i32) (param $i i32) (result i32)
    (i32.add (local.get $nodes) (i32.mul (local.get $i) (i32.const 20))))

  ;; Index of the healthy node whose name is in the store, -1 if there is none.
  (func $live (param $nodes i32) (param $len i32) (result i32)
    (local $i i32) (local $node i32)
    (if (i32.eqz (i32.load8_u (i32.const 16))) (then (return (i32.const -1))))
    (block $none
      (loop $next
        (br_if $none (i32.eq (local.get $i) (local.get $len)))
        (local.set $node (call $node (local.get $nodes) (local.get $i)))
        (if (i32.eqz (i32.load offset=16 (local.get $node)))
          (then
            (if (call $equal (i32.load (local.get $node)) (i32.load offset=4 (local.get $node))
                  (i32.load (i32.const 20)) (i32.load (i32.const 24)))
              (then (return (local.get $i))))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.const -1))

  ;; Index of the first healthy node, -1 if there is none.
  (func $healthy (param $nodes i32) (param $len i32) (result i32)
    (local $i i32)
    (block $none
      (loop $next
        (br_if $none (i32.eq (local.get $i) (local.get $len)))
        (if (i32.eqz (i32.load offset=16 (call $node (local.get $nodes) (local.get $i))))
          (then (return (local.get $i))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.const -1))

  (func $equal (param $a i32) (param $a-len i32) (param $b i32) (param $b-len i32) (result i32)
    (local $i i32)
    (if (i32.ne (local.get $a-len) (local.get $b-len)) (then (return (i32.const 0))))
    (loop $next
      (if (i32.eq (local.get $i) (local.get $a-len)) (then (return (i32.const 1))))
      (if (i32.ne (i32.load8_u (i32.add (local.get $a) (local.get $i))) (i32.load8_u (i32.add (local.get $b) (local.get $i))))
        (then (return (i32.const 0))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; How the host asks for memory: the next multiple of the alignment. It never asks for something to grow here, there being no
  ;; strings that are converted. Memory is added when there is not enough; when there is none to be had, that is a trap.
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32) (local $pages i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    ;; pages of 64 KiB, rounded up
    (local.set $pages
      (i32.sub (i32.shr_u (i32.add (global.get $free) (i32.const 65535)) (i32.const 16)) (memory.size)))
    (if (i32.gt_s (local.get $pages) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then (unreachable)))))
    (local.get $at))
)
