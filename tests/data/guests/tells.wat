;; Answers refuse(400 + n, text) with what the host tells: the first letter of the hostname says which function is asked.
(module
  (import "pointsman:routing/request-info@1.0.0" "header" (func $header (param i32 i32 i32)))
  (import "pointsman:routing/request-info@1.0.0" "cookie" (func $cookie (param i32 i32 i32)))
  (import "pointsman:routing/request-info@1.0.0" "method" (func $method (param i32)))
  (import "pointsman:routing/request-info@1.0.0" "path" (func $path (param i32)))
  (import "pointsman:routing/request-info@1.0.0" "query" (func $query (param i32)))
  (import "pointsman:routing/request-info@1.0.0" "alpn" (func $alpn (param i32)))
  (import "pointsman:routing/request-info@1.0.0" "metadata" (func $metadata (param i32 i32 i32)))
  (import "pointsman:routing/request-info@1.0.0" "node-address" (func $node_address (param i32 i32)))
  (import "pointsman:routing/host@1.0.0" "now-ms" (func $now (result i64)))
  (import "pointsman:routing/host@1.0.0" "random" (func $random (result i64)))
  (import "pointsman:routing/host@1.0.0" "count" (func $count (param i32 i32 i64) (result i64)))
  (import "pointsman:routing/store@1.0.0" "get" (func $get (param i32 i32 i32)))
  (import "pointsman:routing/store@1.0.0" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))
  (import "pointsman:routing/store@1.0.0" "compare-and-set"
    (func $compare_and_set (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "pointsman:routing/store@1.0.0" "delete" (func $delete (param i32 i32) (result i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 512) "X-Onesidregionseen")

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  ;; refuse(400 + n, text)
  (func $say (param $n i32) (param $ptr i32) (param $len i32) (result i32)
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 32))
    (i32.store8 (i32.const 4) (i32.const 3))
    (i32.store16 (i32.const 8) (i32.add (i32.const 400) (local.get $n)))
    (i32.store (i32.const 12) (local.get $ptr))
    (i32.store (i32.const 16) (local.get $len))
    (i32.const 0))

  ;; The option<string> at 256: 400 is nothing, 401 a text.
  (func $option (result i32)
    (if (i32.eqz (i32.load8_u (i32.const 256))) (then (return (call $say (i32.const 0) (i32.const 0) (i32.const 0)))))
    (call $say (i32.const 1) (i32.load (i32.const 260)) (i32.load (i32.const 264))))

  ;; The result<_, failure> at 256: 400 is none, 401 the first failure.
  (func $failure (result i32)
    (if (i32.eqz (i32.load8_u (i32.const 256))) (then (return (call $say (i32.const 0) (i32.const 0) (i32.const 0)))))
    (call $say (i32.add (i32.const 1) (i32.load8_u (i32.const 257))) (i32.const 0) (i32.const 0)))

  ;; The second label is the value, and with it the length of what is stored.
  (func (export "resolve")
    (param $host i32) (param $host_len i32) (param $protocol i32) (param $client i32) (param $client_len i32)
    (param $port i32) (param $service i32) (param $service_len i32) (result i32)
    (local $kind i32)
    (local.set $kind (i32.load8_u (local.get $host)))
    (if (i32.eq (local.get $kind) (i32.const 0x68)) (then ;; h
      (call $header (i32.const 512) (i32.const 5) (i32.const 256)) (return (call $option))))
    (if (i32.eq (local.get $kind) (i32.const 0x6b)) (then ;; k
      (call $cookie (i32.const 517) (i32.const 3) (i32.const 256)) (return (call $option))))
    (if (i32.eq (local.get $kind) (i32.const 0x64)) (then ;; d
      (call $metadata (i32.const 520) (i32.const 6) (i32.const 256)) (return (call $option))))
    (if (i32.eq (local.get $kind) (i32.const 0x71)) (then ;; q
      (call $query (i32.const 256)) (return (call $option))))
    (if (i32.eq (local.get $kind) (i32.const 0x6d)) (then ;; m
      (call $method (i32.const 256)) (return (call $say (i32.const 2) (i32.load (i32.const 256)) (i32.load (i32.const 260))))))
    (if (i32.eq (local.get $kind) (i32.const 0x70)) (then ;; p
      (call $path (i32.const 256)) (return (call $say (i32.const 2) (i32.load (i32.const 256)) (i32.load (i32.const 260))))))
    (if (i32.eq (local.get $kind) (i32.const 0x61)) (then ;; a: how many, and the last
      (call $alpn (i32.const 256))
      (if (i32.eqz (i32.load (i32.const 260))) (then (return (call $say (i32.const 0) (i32.const 0) (i32.const 0)))))
      (local.set $port (i32.add (i32.load (i32.const 256))
        (i32.mul (i32.const 8) (i32.sub (i32.load (i32.const 260)) (i32.const 1)))))
      (return (call $say (i32.load (i32.const 260)) (i32.load (local.get $port)) (i32.load offset=4 (local.get $port))))))
    (if (i32.eq (local.get $kind) (i32.const 0x6e)) (then ;; n: no node in an ingress
      (call $node_address (i32.const 0) (i32.const 256)) (return (call $option))))
    (if (i32.eq (local.get $kind) (i32.const 0x74)) (then ;; t: 401 after 2020
      (return (call $say (i64.gt_u (call $now) (i64.const 1577836800000)) (i32.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $kind) (i32.const 0x72)) (then ;; r: 401 where two differ
      (return (call $say (i64.ne (call $random) (call $random)) (i32.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $kind) (i32.const 0x63)) (then ;; c
      (return (call $say (i32.wrap_i64 (call $count (i32.const 526) (i32.const 4) (i64.const 1))) (i32.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $kind) (i32.const 0x67)) (then ;; g: under the host's second letter on
      (call $get (i32.add (local.get $host) (i32.const 1)) (i32.const 1) (i32.const 256)) (return (call $option))))
    (if (i32.eq (local.get $kind) (i32.const 0x73)) (then ;; s: the whole hostname
      (call $set (i32.add (local.get $host) (i32.const 1)) (i32.const 1) (local.get $host) (local.get $host_len)
        (i32.const 0) (i32.const 0) (i32.const 256))
      (return (call $failure))))
    (if (i32.eq (local.get $kind) (i32.const 0x77)) (then ;; w: if there is none
      (call $compare_and_set (i32.add (local.get $host) (i32.const 1)) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)
        (local.get $host) (local.get $host_len) (i32.const 0) (i32.const 0) (i32.const 256))
      (return (call $failure))))
    (if (i32.eq (local.get $kind) (i32.const 0x78)) (then ;; x
      (return (call $say (call $delete (i32.add (local.get $host) (i32.const 1)) (i32.const 1)) (i32.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $kind) (i32.const 0x7a)) (then ;; z: more than a value may have
      (call $set (i32.const 526) (i32.const 1) (i32.const 0) (i32.const 65537) (i32.const 0) (i32.const 0) (i32.const 256))
      (return (call $failure))))
    (if (i32.eq (local.get $kind) (i32.const 0x69)) (then ;; i: the request's own fields
      (return (call $say (local.get $protocol) (local.get $client) (local.get $client_len)))))
    (call $say (i32.const 99) (local.get $service) (local.get $service_len)))

  (func (export "cabi_post_resolve") (param i32) (global.set $free (i32.const 65536))))
