;; An ingress plugin as a core module: every host goes through one tunnel, but for `pass.example`, `refuse.example` and
;; the like, whose names say what is answered. `configure` with "bad" fails.
(module
  (import "pointsman:routing/host@1.0.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  ;; Where answers are written: result<answer, string> has 32 bytes.
  (data (i32.const 64) "4d21094e-b74c-4916-86c1-d9fa36ea677b")
  (data (i32.const 128) "not today")
  (data (i32.const 160) "bad configuration")

  ;; Strings that come in lie behind one another until the next call.
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  (func $first_byte (param $ptr i32) (param $len i32) (result i32)
    (if (result i32) (local.get $len) (then (i32.load8_u (local.get $ptr))) (else (i32.const 0))))

  (func (export "resolve")
    (param $host i32) (param $host_len i32) (param $protocol i32) (param $client i32) (param $client_len i32)
    (param $port i32) (param $service i32) (param $service_len i32) (result i32)
    (local $kind i32)
    (local.set $kind (call $first_byte (local.get $host) (local.get $host_len)))
    (global.set $free (i32.const 65536))
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 32))
    ;; p: pass
    (if (i32.eq (local.get $kind) (i32.const 0x70)) (then (return (i32.const 0))))
    ;; r: refuse(451, "not today")
    (if (i32.eq (local.get $kind) (i32.const 0x72)) (then
      (i32.store8 (i32.const 4) (i32.const 3))
      (i32.store16 (i32.const 8) (i32.const 451))
      (i32.store (i32.const 12) (i32.const 128))
      (i32.store (i32.const 16) (i32.const 9))
      (return (i32.const 0))))
    ;; e: err("not today")
    (if (i32.eq (local.get $kind) (i32.const 0x65)) (then
      (i32.store8 (i32.const 0) (i32.const 1))
      (i32.store (i32.const 4) (i32.const 128))
      (i32.store (i32.const 8) (i32.const 9))
      (return (i32.const 0))))
    ;; l: an endless loop; t: a trap
    (if (i32.eq (local.get $kind) (i32.const 0x6c)) (then (loop $for_ever (br $for_ever))))
    (if (i32.eq (local.get $kind) (i32.const 0x74)) (then unreachable))
    ;; tunnel, or for x: expose
    (i32.store8 (i32.const 4) (i32.add (i32.const 1) (i32.eq (local.get $kind) (i32.const 0x78))))
    (i32.store (i32.const 8) (i32.const 64))
    (i32.store (i32.const 12) (i32.const 36))
    ;; c: may be given again for a minute
    (if (i32.eq (local.get $kind) (i32.const 0x63)) (then
      (i32.store8 (i32.const 20) (i32.const 1))
      (i32.store (i32.const 24) (i32.const 60000))))
    (call $log (i32.const 1) (i32.const 64) (i32.const 36))
    (i32.const 0))

  (func (export "configure") (param $config i32) (param $len i32) (result i32)
    (global.set $free (i32.const 65536))
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 12))
    (if (i32.eq (call $first_byte (local.get $config) (local.get $len)) (i32.const 0x62)) (then
      (i32.store8 (i32.const 0) (i32.const 1))
      (i32.store (i32.const 4) (i32.const 160))
      (i32.store (i32.const 8) (i32.const 17))))
    (i32.const 0)))
