;; A plugin that harms where it can: the first letter of the hostname, or of the configuration, says how.
(module
  (import "pointsman:routing/host@1.0.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 64) "4d21094e-b74c-4916-86c1-d9fa36ea677b")
  (data (i32.const 128) "no\ntunnel\1b[31m")
  (data (i32.const 160) "\ff\fe\fd")

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  (func $deeper (param $n i64) (result i64) (i64.add (call $deeper (i64.add (local.get $n) (i64.const 1))) (local.get $n)))

  ;; 1: an error whose text is at $ptr
  (func $harm (param $kind i32) (result i32)
    (local $lines i32)
    (if (i32.eq (local.get $kind) (i32.const 0x6c)) (then (loop $for_ever (br $for_ever)))) ;; l
    (if (i32.eq (local.get $kind) (i32.const 0x74)) (then unreachable)) ;; t
    (if (i32.eq (local.get $kind) (i32.const 0x73)) (then (drop (call $deeper (i64.const 0))))) ;; s
    (if (i32.eq (local.get $kind) (i32.const 0x6d)) (then ;; m
      (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
      unreachable))
    (if (i32.eq (local.get $kind) (i32.const 0x67)) (then ;; g
      (loop $next
        (call $log (i32.const 2) (i32.const 64) (i32.const 36))
        (local.set $lines (i32.add (local.get $lines) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $lines) (i32.const 10000))))))
    (if (i32.eq (local.get $kind) (i32.const 0x62)) (then ;; b: an error of 16 MiB
      (if (i32.lt_u (memory.size) (i32.const 258)) (then (drop (memory.grow (i32.const 256)))))
      (i32.store8 (i32.const 0) (i32.const 1))
      (i32.store (i32.const 4) (i32.const 65536))
      (i32.store (i32.const 8) (i32.const 16777216))
      (return (i32.const 1))))
    (if (i32.eq (local.get $kind) (i32.const 0x75)) (then ;; u: an error that is no UTF-8
      (i32.store8 (i32.const 0) (i32.const 1))
      (i32.store (i32.const 4) (i32.const 160))
      (i32.store (i32.const 8) (i32.const 3))
      (return (i32.const 1))))
    (if (i32.eq (local.get $kind) (i32.const 0x65)) (then ;; e: an error that draws on the terminal
      (i32.store8 (i32.const 0) (i32.const 1))
      (i32.store (i32.const 4) (i32.const 128))
      (i32.store (i32.const 8) (i32.const 14))
      (return (i32.const 1))))
    (i32.const 0))

  (func (export "resolve")
    (param $host i32) (param $host_len i32) (param $protocol i32) (param $client i32) (param $client_len i32)
    (param $port i32) (param $service i32) (param $service_len i32) (result i32)
    (local $kind i32)
    (local.set $kind (i32.load8_u (local.get $host)))
    (global.set $free (i32.const 65536))
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 32))
    (if (call $harm (local.get $kind)) (then (return (i32.const 0))))
    (i32.store8 (i32.const 4) (i32.const 1))
    (i32.store (i32.const 8) (i32.const 64))
    (i32.store (i32.const 12) (i32.const 36))
    (if (i32.eq (local.get $kind) (i32.const 0x69)) (then ;; i: a tunnel ID that is none
      (i32.store (i32.const 8) (i32.const 128))
      (i32.store (i32.const 12) (i32.const 14))))
    (if (i32.eq (local.get $kind) (i32.const 0x76)) (then ;; v: a verdict that does not exist
      (i32.store8 (i32.const 4) (i32.const 9))))
    (if (i32.eq (local.get $kind) (i32.const 0x77)) (then ;; w: a text that lies outside
      (i32.store (i32.const 8) (i32.const 0x7fffff00))))
    (i32.const 0))

  (func (export "configure") (param $config i32) (param $len i32) (result i32)
    (global.set $free (i32.const 65536))
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 12))
    (if (local.get $len) (then (drop (call $harm (i32.load8_u (local.get $config))))))
    (i32.const 0)))
