;; A guest built for wasip1, as far as the adapter can tell: asks it for everything, and traps at an answer that it should not get.
;; A hostname of one byte makes it exit in the middle of a line.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fd_fdstat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func $sock_accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_raise" (func $proc_raise (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 1)
  ;; a line in two pieces; bytes that are no UTF-8; a character of each length
  (data (i32.const 0) "one line\na\ff\c3(\ed\a0\80\f4\90\80\80z\n$\c3\a4\e2\82\ac\f0\9d\84\9e\n\nrest")
  (data (i32.const 80) "warned\n")

  ;; address and length for fd_write, at 128
  (func $write (param $fd i32) (param $at i32) (param $len i32) (result i32)
    (i32.store (i32.const 128) (local.get $at))
    (i32.store (i32.const 132) (local.get $len))
    (call $fd_write (local.get $fd) (i32.const 128) (i32.const 1) (i32.const 136)))

  (func $expect (param $got i32) (param $wanted i32)
    (if (i32.ne (local.get $got) (local.get $wanted)) (then (unreachable))))

  (func $time (result i64)
    (call $expect (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 144)) (i32.const 0))
    (i64.load (i32.const 144)))

  (func (export "resolve")
    (param $hostname i32) (param $hostname-len i32) (param i32 i32 i32 i32 i32 i32) (result i32)
    (local $before i64)
    ;; output
    (call $expect (call $write (i32.const 1) (i32.const 0) (i32.const 4)) (i32.const 0))
    (call $expect (i32.load (i32.const 136)) (i32.const 4))
    (call $expect (call $write (i32.const 2) (i32.const 80) (i32.const 7)) (i32.const 0))
    (call $expect (call $write (i32.const 1) (i32.const 4) (i32.const 34)) (i32.const 0))
    (call $expect (call $write (i32.const 0) (i32.const 0) (i32.const 4)) (i32.const 8))
    (call $expect (call $write (i32.const 3) (i32.const 0) (i32.const 4)) (i32.const 8))
    (call $expect (call $fd_fdstat_get (i32.const 1) (i32.const 160)) (i32.const 0))
    (call $expect (i32.load8_u (i32.const 160)) (i32.const 2))
    (call $expect (call $fd_fdstat_get (i32.const 0) (i32.const 160)) (i32.const 8))
    (if (i32.eq (local.get $hostname-len) (i32.const 1)) (then (call $proc_exit (i32.const 0))))
    ;; what there is not
    (call $expect (call $fd_prestat_get (i32.const 4) (i32.const 160)) (i32.const 8))
    (call $expect (call $fd_prestat_get (i32.const 3) (i32.const 160)) (i32.const 0))
    (call $expect (i32.load (i32.const 164)) (i32.const 1))
    (call $expect
      (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0)
        (i32.const 160))
      (i32.const 2))
    (call $expect (call $sock_accept (i32.const 3) (i32.const 0) (i32.const 160)) (i32.const 2))
    (call $expect (call $proc_raise (i32.const 9)) (i32.const 52))
    (i32.store (i32.const 160) (i32.const 7))
    (call $expect (call $environ_sizes_get (i32.const 160) (i32.const 164)) (i32.const 0))
    (call $expect (i32.load (i32.const 160)) (i32.const 0))
    ;; time goes on, and a sleep of a second takes none and is a second by the clock
    (local.set $before (call $time))
    (if (i64.lt_u (local.get $before) (i64.const 1700000000000000000)) (then (unreachable)))
    (if (i64.le_u (call $time) (local.get $before)) (then (unreachable)))
    (i64.store (i32.const 192) (i64.const 77)) ;; userdata
    (i64.store (i32.const 216) (i64.const 1000000000))
    (call $expect (call $poll_oneoff (i32.const 192) (i32.const 256) (i32.const 1) (i32.const 160)) (i32.const 0))
    (call $expect (i32.load (i32.const 160)) (i32.const 1))
    (call $expect (i32.load (i32.const 256)) (i32.const 77))
    (if (i64.lt_u (call $time) (i64.add (local.get $before) (i64.const 1000000000))) (then (unreachable)))
    (call $expect (call $poll_oneoff (i32.const 192) (i32.const 256) (i32.const 0) (i32.const 160)) (i32.const 28))
    ;; twelve random bytes and not one more
    (call $expect (call $random_get (i32.const 320) (i32.const 12)) (i32.const 0))
    (if (i64.eqz (i64.load (i32.const 320))) (then (unreachable)))
    (if (i32.eqz (i32.load (i32.const 328))) (then (unreachable)))
    (call $expect (i32.load (i32.const 332)) (i32.const 0))
    ;; ok(pass), none
    (i32.const 1024))

  (global $free (mut i32) (i32.const 2048))
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $free))
    (global.set $free (i32.add (local.get $at) (i32.and (i32.add (local.get $size) (i32.const 15)) (i32.const -8))))
    (local.get $at))
)
