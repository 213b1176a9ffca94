;; A forwarder plugin: the first letter of the hostname says what is chosen; a digit is the index of a node.
(module
  (import "pointsman:routing/request-info@1.0.0" "node-address" (func $node_address (param i32 i32)))
  (import "pointsman:routing/request-info@1.0.0" "node-label" (func $node_label (param i32 i32 i32 i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 64) "10.1.2.3:80")
  (data (i32.const 96) "192.0.2.9:80")
  (data (i32.const 128) "no address")
  (data (i32.const 160) "ZONE")

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get $size)))
    (local.get $at))

  (func $answer (param $verdict i32) (param $a i32) (param $b i32) (result i32)
    (i32.store8 (i32.const 4) (local.get $verdict))
    (i32.store (i32.const 8) (local.get $a))
    (i32.store (i32.const 12) (local.get $b))
    (i32.const 0))

  (func $say (param $n i32) (param $ptr i32) (param $len i32) (result i32)
    (i32.store (i32.const 16) (local.get $len))
    (call $answer (i32.const 3) (i32.add (i32.const 400) (local.get $n)) (local.get $ptr)))

  (func $option (result i32)
    (if (i32.eqz (i32.load8_u (i32.const 256))) (then (return (call $say (i32.const 0) (i32.const 0) (i32.const 0)))))
    (call $say (i32.const 1) (i32.load (i32.const 260)) (i32.load (i32.const 264))))

  (func (export "select")
    (param $host i32) (param $host_len i32) (param $protocol i32) (param $client i32) (param $client_len i32)
    (param $port i32) (param $service i32) (param $service_len i32) (param $nodes i32) (param $count i32) (result i32)
    (local $kind i32)
    (local.set $kind (i32.load8_u (local.get $host)))
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 32))
    (if (i32.lt_u (i32.sub (local.get $kind) (i32.const 0x30)) (i32.const 10)) (then
      (return (call $answer (i32.const 1) (i32.sub (local.get $kind) (i32.const 0x30)) (i32.const 0)))))
    (if (i32.eq (local.get $kind) (i32.const 0x61)) (then ;; a: an address
      (return (call $answer (i32.const 2) (i32.const 64) (i32.const 11)))))
    (if (i32.eq (local.get $kind) (i32.const 0x62)) (then ;; b: another
      (return (call $answer (i32.const 2) (i32.const 96) (i32.const 12)))))
    (if (i32.eq (local.get $kind) (i32.const 0x78)) (then ;; x: none
      (return (call $answer (i32.const 2) (i32.const 128) (i32.const 10)))))
    (if (i32.eq (local.get $kind) (i32.const 0x72)) (then ;; r
      (return (call $say (i32.const 51) (i32.const 128) (i32.const 2)))))
    (if (i32.eq (local.get $kind) (i32.const 0x69)) (then (loop $for_ever (br $for_ever)))) ;; i
    (if (i32.eq (local.get $kind) (i32.const 0x6b)) (then ;; k: the first, for a minute
      (i32.store8 (i32.const 20) (i32.const 1))
      (i32.store (i32.const 24) (i32.const 60000))
      (return (call $answer (i32.const 1) (i32.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $kind) (i32.const 0x6e)) (then ;; n: weight and name of the first
      (return (call $say (i32.load offset=8 (local.get $nodes)) (i32.load (local.get $nodes)) (i32.load offset=4 (local.get $nodes))))))
    (if (i32.eq (local.get $kind) (i32.const 0x75)) (then ;; u: what it is busy with, and its failures
      (return (call $say
        (i32.add (i32.mul (i32.const 10) (i32.load offset=12 (local.get $nodes))) (i32.load offset=16 (local.get $nodes)))
        (i32.const 0) (i32.const 0)))))
    (if (i32.eq (local.get $kind) (i32.const 0x64)) (then ;; d: the address of the second
      (call $node_address (i32.const 1) (i32.const 256)) (return (call $option))))
    (if (i32.eq (local.get $kind) (i32.const 0x6c)) (then ;; l: the zone of the first
      (call $node_label (i32.const 0) (i32.const 160) (i32.const 4) (i32.const 256)) (return (call $option))))
    (if (i32.eq (local.get $kind) (i32.const 0x66)) (then ;; f: beyond the last
      (call $node_address (local.get $count) (i32.const 256)) (return (call $option))))
    (i32.const 0))

  (func (export "cabi_post_select") (param i32) (global.set $free (i32.const 65536))))
