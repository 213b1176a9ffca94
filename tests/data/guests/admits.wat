;; An admission plugin as a core module: the first letter of the name that a client asks for says what is answered. Any other client,
;; and one that asks for no name, may come in. `configure` with "n" makes all that deny.
(module
  (import "pointsman:routing/request-info@1.0.0" "metadata" (func $metadata (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (global $shut (mut i32) (i32.const 0))
  ;; Where answers are written: result<answer, string> has 28 bytes. At 32: option<string> of $metadata.
  (data (i32.const 64) "not yours")
  (data (i32.const 80) "tcp")
  (data (i32.const 84) "udp")
  (data (i32.const 88) "region")
  (data (i32.const 96) "a.example")
  (data (i32.const 112) "*.b.example")
  (data (i32.const 128) "*")
  ;; A list of two texts, and one of one.
  (data (i32.const 160) "\60\00\00\00\09\00\00\00\70\00\00\00\0b\00\00\00")
  (data (i32.const 176) "\80\00\00\00\01\00\00\00")

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  ;; allow(list) or deny(text)
  (func $verdict (param $kind i32) (param $ptr i32) (param $len i32) (result i32)
    (i32.store8 (i32.const 4) (local.get $kind))
    (i32.store (i32.const 8) (local.get $ptr))
    (i32.store (i32.const 12) (local.get $len))
    (i32.const 0))

  (func (export "admit")
    (param $service i32) (param $service_len i32) (param $tunnel i32) (param $tunnel_len i32) (param $user i32) (param $user_len i32)
    (param $host i32) (param $host_len i32) (param $client i32) (param $client_len i32) (param $port i32) (param $udp i32) (result i32)
    (local $kind i32)
    (if (local.get $host_len) (then (local.set $kind (i32.load8_u (local.get $host)))))
    (global.set $free (i32.const 65536))
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 64))
    ;; p: pass; d: deny
    (if (i32.eq (local.get $kind) (i32.const 0x70)) (then (return (i32.const 0))))
    (if (i32.or (global.get $shut) (i32.eq (local.get $kind) (i32.const 0x64)))
      (then (return (call $verdict (i32.const 2) (i32.const 64) (i32.const 9)))))
    ;; u, i, k, s, f, m: deny with user, tunnel, client, service, network, the metadata `region`
    (if (i32.eq (local.get $kind) (i32.const 0x75))
      (then (return (call $verdict (i32.const 2) (local.get $user) (local.get $user_len)))))
    (if (i32.eq (local.get $kind) (i32.const 0x69))
      (then (return (call $verdict (i32.const 2) (local.get $tunnel) (local.get $tunnel_len)))))
    (if (i32.eq (local.get $kind) (i32.const 0x6b))
      (then (return (call $verdict (i32.const 2) (local.get $client) (local.get $client_len)))))
    (if (i32.eq (local.get $kind) (i32.const 0x73))
      (then (return (call $verdict (i32.const 2) (local.get $service) (local.get $service_len)))))
    (if (i32.eq (local.get $kind) (i32.const 0x66))
      (then (return (call $verdict (i32.const 2)
        (i32.add (i32.const 80) (i32.mul (local.get $udp) (i32.const 4))) (i32.const 3)))))
    (if (i32.eq (local.get $kind) (i32.const 0x6d)) (then
      (call $metadata (i32.const 88) (i32.const 6) (i32.const 32))
      (return (call $verdict (i32.const 2) (i32.load (i32.const 36)) (i32.load (i32.const 40))))))
    ;; e: err("not yours"); t: a trap; l: an endless loop
    (if (i32.eq (local.get $kind) (i32.const 0x65)) (then
      (i32.store8 (i32.const 0) (i32.const 1))
      (i32.store (i32.const 4) (i32.const 64))
      (i32.store (i32.const 8) (i32.const 9))
      (return (i32.const 0))))
    (if (i32.eq (local.get $kind) (i32.const 0x74)) (then unreachable))
    (if (i32.eq (local.get $kind) (i32.const 0x6c)) (then (loop $for_ever (br $for_ever))))
    ;; n: allow a.example and *.b.example; b: a name that is none
    (if (i32.eq (local.get $kind) (i32.const 0x6e))
      (then (return (call $verdict (i32.const 1) (i32.const 160) (i32.const 2)))))
    (if (i32.eq (local.get $kind) (i32.const 0x62))
      (then (return (call $verdict (i32.const 1) (i32.const 176) (i32.const 1)))))
    ;; c: may be said again for a minute, of the same client
    (if (i32.eq (local.get $kind) (i32.const 0x63)) (then
      (i32.store8 (i32.const 16) (i32.const 1))
      (i32.store (i32.const 20) (i32.const 60000))
      (i32.store8 (i32.const 24) (i32.const 1))))
    (call $verdict (i32.const 1) (i32.const 0) (i32.const 0)))

  (func (export "configure") (param $config i32) (param $len i32) (result i32)
    (if (local.get $len) (then (global.set $shut (i32.eq (i32.load8_u (local.get $config)) (i32.const 0x6e)))))
    (global.set $free (i32.const 65536))
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 12))
    (i32.const 0)))
