;; Hostname to tunnel, from lines `HOSTNAME: TUNNEL-ID`.
;;
;; A core module: the proxy makes a component of it when it is loaded. Strings come as address and length, and the answer is a
;; record in memory. `resolve` looks for the hostname in the configuration's text as it is.
(module
  ;; 0: the answer, 32 bytes. 32: `configure`'s, 12 bytes. From 64: the configuration, and behind it what comes with a call.
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 64))
  (global $config (mut i32) (i32.const 64))
  (global $end (mut i32) (i32.const 64))

  ;; configure: func(config: string) -> result<_, string>; the text stays where it is
  (func (export "configure") (param $config i32) (param $len i32) (result i32)
    (global.set $config (local.get $config))
    (global.set $end (i32.add (local.get $config) (local.get $len)))
    (global.set $free (global.get $end))
    (i32.const 32))

  ;; resolve: func(req: request) -> result<answer, string>
  ;;
  ;; The answer: ok or error 0, verdict 4 (0 is pass, 1 is a tunnel), tunnel's address 8 and length 12, reuse 20 (1: there is one),
  ;; its milliseconds 24, what it depends on beside the hostname 28.
  (func (export "resolve")
    (param $host i32) (param $host-len i32) (param $protocol i32) (param $client i32) (param $client-len i32)
    (param $client-port i32) (param $service i32) (param $service-len i32) (result i32)
    (local $line i32) (local $stop i32) (local $tunnel i32)
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 32))
    (i32.store8 (i32.const 20) (i32.const 1))
    (i32.store (i32.const 24) (i32.const 60000))
    (local.set $line (global.get $config))
    (block $found-none
      (loop $next
        (br_if $found-none (i32.ge_u (local.get $line) (global.get $end)))
        (local.set $stop (call $find (local.get $line) (global.get $end) (i32.const 10)))
        ;; behind the hostname, the colon and a blank
        (local.set $tunnel (i32.add (i32.add (local.get $line) (local.get $host-len)) (i32.const 2)))
        (if (i32.lt_u (local.get $tunnel) (local.get $stop))
          (then
            (if (i32.and
                  (call $equal (local.get $line) (local.get $host) (local.get $host-len))
                  (i32.eq (i32.load8_u (i32.sub (local.get $tunnel) (i32.const 2))) (i32.const 58)))
              (then
                (i32.store8 (i32.const 4) (i32.const 1))
                (i32.store (i32.const 8) (local.get $tunnel))
                (i32.store (i32.const 12) (i32.sub (local.get $stop) (local.get $tunnel)))
                (return (i32.const 0))))))
        (local.set $line (i32.add (local.get $stop) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; Called when the proxy has read the answer: what came with the call is no longer needed.
  (func (export "cabi_post_resolve") (param i32)
    (global.set $free (global.get $end)))

  ;; Where `byte` is from `at` on, `end` if it is not there.
  (func $find (param $at i32) (param $end i32) (param $byte i32) (result i32)
    (loop $next
      (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (local.get $end))))
      (if (i32.eq (i32.load8_u (local.get $at)) (local.get $byte)) (then (return (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next))
    (unreachable))

  (func $equal (param $a i32) (param $b i32) (param $len i32) (result i32)
    (loop $next
      (if (i32.eqz (local.get $len)) (then (return (i32.const 1))))
      (if (i32.ne (i32.load8_u (local.get $a)) (i32.load8_u (local.get $b))) (then (return (i32.const 0))))
      (local.set $a (i32.add (local.get $a) (i32.const 1)))
      (local.set $b (i32.add (local.get $b) (i32.const 1)))
      (local.set $len (i32.sub (local.get $len) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; How the proxy asks for memory: what is free, aligned, with more added when there is not enough.
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32) (local $pages i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.set $pages
      (i32.sub (i32.shr_u (i32.add (global.get $free) (i32.const 65535)) (i32.const 16)) (memory.size)))
    (if (i32.gt_s (local.get $pages) (i32.const 0))
      (then
        (if (i32.lt_s (memory.grow (local.get $pages)) (i32.const 0)) (then unreachable))))
    (local.get $at)))
