;; WASI preview 1 with nothing behind it, as an adapter for wit-component.
;;
;; A core module built for `wasm32-wasip1` becomes a component that imports `pointsman:routing/host`, and of WASI what it will be
;; refused: under names of our own, which `wasi.rs` answers as it does all others that are not offered.
;; What a language's runtime needs in order to start is here; what would reach outside is answered with an error number:
;;
;;   arguments, environment   empty
;;   descriptors              1 and 2, which can be written to, and 3, a root directory without which the languages' libraries
;;                            would not even ask for a file; every other, and every other call on those, is EBADF
;;   files, sockets           EACCES, and the host is told the name of the call
;;   stdout, stderr           host.log, line by line, as info and warn
;;   random                   host.random, not fit for secrets
;;   clock                    asks host.now-ms once and counts on, see `clock_time_get`
;;   sleeping                 returns at once, see `poll_oneoff`
;;   exit                     what is left of a line is logged, then a trap: an instance that ended cannot be called again
;;   signals                  ENOSYS
;;
;; wit-component keeps of this module what a guest uses. It permits an adapter no memory, table or data of its own.
(module
  (import "env" "memory" (memory 0))
  (import "pointsman:routing/host@1.0.0" "log" (func $log (param $level i32) (param $text i32) (param $len i32)))
  (import "pointsman:routing/host@1.0.0" "now-ms" (func $now-ms (result i64)))
  (import "pointsman:routing/host@1.0.0" "random" (func $random (result i64)))

  (import "wasi:snapshot/preview1@0.2.0" "path-create-directory" (func $path_create_directory (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-filestat-get" (func $path_filestat_get (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-filestat-set-times" (func $path_filestat_set_times (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-link" (func $path_link (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-open" (func $path_open (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-readlink" (func $path_readlink (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-remove-directory" (func $path_remove_directory (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-rename" (func $path_rename (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-symlink" (func $path_symlink (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "path-unlink-file" (func $path_unlink_file (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "sock-accept" (func $sock_accept (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "sock-recv" (func $sock_recv (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "sock-send" (func $sock_send (result i32)))
  (import "wasi:snapshot/preview1@0.2.0" "sock-shutdown" (func $sock_shutdown (result i32)))

  (global $EACCES i32 (i32.const 2))
  (global $EBADF i32 (i32.const 8))
  (global $EINVAL i32 (i32.const 28))
  (global $ENOMEM i32 (i32.const 48))
  (global $ENOSYS i32 (i32.const 52))

  ;; Arguments and environment.

  (func (export "args_sizes_get") (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (func (export "environ_sizes_get") (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (func (export "args_get") (param i32 i32) (result i32) (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) (i32.const 0))

  ;; Time, in nanoseconds; 0 is "not asked yet".
  ;;
  ;; Go's collector reads the clock inside `cabi_realloc`, and there the component model lets no import be called: asking the
  ;; host each time would end a guest in a trap, sooner or later. So the first reading, which falls into a runtime's start, asks,
  ;; and each one after it is a microsecond later. Time goes forward and stays near the start of the instance; a plugin that
  ;; wants to know the time calls host.now-ms.
  ;;
  ;; Go's bindings tell with `adapter_monotonic_clock_set_paused` when they are inside `cabi_realloc`, but not when they are in a
  ;; post-return, where no import may be called either. So it changes nothing here.

  (global $clock (mut i64) (i64.const 0))

  (func $tick (result i64)
    (if (i64.eqz (global.get $clock))
      (then (global.set $clock (i64.mul (call $now-ms) (i64.const 1000000)))))
    (global.set $clock (i64.add (global.get $clock) (i64.const 1000)))
    (global.get $clock))

  (func (export "clock_res_get") (param $id i32) (param $out i32) (result i32)
    (i64.store (local.get $out) (i64.const 1000))
    (i32.const 0))
  (func (export "clock_time_get") (param $id i32) (param $precision i64) (param $out i32) (result i32)
    (i64.store (local.get $out) (call $tick))
    (i32.const 0))
  (func (export "adapter_monotonic_clock_set_paused") (param $paused i32))
  (func (export "sched_yield") (result i32) (i32.const 0))

  ;; Waiting: the first subscription is reported, which preview 1 permits whatever the others are. A sleeper is told that its time
  ;; has come, and the clock is put there, so that it does not ask again and again. A descriptor is never ready: EBADF.
  ;;
  ;; A subscription has 48 bytes: userdata 0, tag 8 (0 is a clock), time 24, flags 40 (1: the time is absolute).
  ;; An event has 32: userdata 0, error 8, tag 10.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $events i32) (result i32)
    (local $tag i32) (local $now i64) (local $until i64)
    (if (i32.eqz (local.get $count)) (then (return (global.get $EINVAL))))
    (local.set $tag (i32.load8_u offset=8 (local.get $in)))
    (memory.fill (local.get $out) (i32.const 0) (i32.const 32))
    (i64.store (local.get $out) (i64.load (local.get $in)))
    (i32.store8 offset=10 (local.get $out) (local.get $tag))
    (if (local.get $tag)
      (then (i32.store16 offset=8 (local.get $out) (global.get $EBADF)))
      (else
        (local.set $now (call $tick))
        (local.set $until (i64.load offset=24 (local.get $in)))
        (if (i32.eqz (i32.and (i32.load16_u offset=40 (local.get $in)) (i32.const 1)))
          (then (local.set $until (i64.add (local.get $now) (local.get $until)))))
        (if (i64.gt_u (local.get $until) (local.get $now))
          (then (global.set $clock (local.get $until))))))
    (i32.store (local.get $events) (i32.const 1))
    (i32.const 0))

  ;; One random number is good for eight bytes.
  (func (export "random_get") (param $to i32) (param $len i32) (result i32)
    (local $i i32) (local $bits i64)
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $i) (local.get $len)))
        (if (i32.eqz (i32.and (local.get $i) (i32.const 7)))
          (then (local.set $bits (call $random))))
        (i32.store8 (i32.add (local.get $to) (local.get $i)) (i32.wrap_i64 (local.get $bits)))
        (local.set $bits (i64.shr_u (local.get $bits) (i64.const 8)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; Output. Runtimes write a line in several pieces, so an unfinished one is kept: the length in 4 bytes, then the text.
  ;; The two lines lie in a page by which the guest's memory is grown at the first write: its allocator
  ;; cannot be called, for the collector may be the one that writes.

  (global $page (mut i32) (i32.const 0))
  ;; As much as the host keeps of a message. A longer line is logged in pieces.
  (global $MAX_LINE i32 (i32.const 1024))

  (func (export "fd_write") (param $fd i32) (param $iovs i32) (param $count i32) (param $out i32) (result i32)
    (local $sum i32) (local $len i32)
    (if (i32.eqz (call $is-output (local.get $fd))) (then (return (global.get $EBADF))))
    (if (i32.eqz (call $has-page)) (then (return (global.get $ENOMEM))))
    (block $done
      (loop $iov
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $len (i32.load offset=4 (local.get $iovs)))
        (call $put (local.get $fd) (i32.load (local.get $iovs)) (local.get $len))
        (local.set $sum (i32.add (local.get $sum) (local.get $len)))
        (local.set $iovs (i32.add (local.get $iovs) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $iov)))
    (i32.store (local.get $out) (local.get $sum))
    (i32.const 0))

  ;; A terminal to write to, of which C's library sends every line as it is finished; anything else it would keep until the exit.
  ;; 24 bytes: type 0 (2 is a character device), flags 2, rights 8 (64 is fd_write), rights of what is opened through it 16.
  (func (export "fd_fdstat_get") (param $fd i32) (param $out i32) (result i32)
    (if (i32.eq (local.get $fd) (global.get $ROOT)) (then
      (i64.store (local.get $out) (i64.const 3)) ;; a directory, with all rights
      (i64.store offset=8 (local.get $out) (i64.const -1))
      (i64.store offset=16 (local.get $out) (i64.const -1))
      (return (i32.const 0))))
    (if (i32.eqz (call $is-output (local.get $fd))) (then (return (global.get $EBADF))))
    (i64.store (local.get $out) (i64.const 2))
    (i64.store offset=8 (local.get $out) (i64.const 64))
    (i64.store offset=16 (local.get $out) (i64.const 0))
    (i32.const 0))

  ;; The root directory: 8 bytes, of which the first is 0 for a directory and the last four are the length of its name.
  (global $ROOT i32 (i32.const 3))
  (func (export "fd_prestat_get") (param $fd i32) (param $out i32) (result i32)
    (if (i32.ne (local.get $fd) (global.get $ROOT)) (then (return (global.get $EBADF))))
    (i64.store (local.get $out) (i64.const 0x1_0000_0000))
    (i32.const 0))
  (func (export "fd_prestat_dir_name") (param $fd i32) (param $name i32) (param $len i32) (result i32)
    (if (i32.ne (local.get $fd) (global.get $ROOT)) (then (return (global.get $EBADF))))
    (if (i32.eqz (local.get $len)) (then (return (global.get $EINVAL))))
    (i32.store8 (local.get $name) (i32.const 0x2f)) ;; "/"
    (i32.const 0))
  (func $refused (param $told i32) (result i32) (global.get $EACCES))

  (func (export "proc_exit") (param $code i32)
    (if (global.get $page)
      (then (call $flush (i32.const 1)) (call $flush (i32.const 2))))
    unreachable)

  (func $is-output (param $fd i32) (result i32)
    (i32.or (i32.eq (local.get $fd) (i32.const 1)) (i32.eq (local.get $fd) (i32.const 2))))

  (func $has-page (result i32)
    (local $grown i32)
    (if (i32.eqz (global.get $page))
      (then
        (local.set $grown (memory.grow (i32.const 1)))
        (if (i32.eq (local.get $grown) (i32.const -1)) (then (return (i32.const 0))))
        (global.set $page (i32.shl (local.get $grown) (i32.const 16)))))
    (i32.const 1))

  (func $line (param $fd i32) (result i32)
    (i32.add (global.get $page) (i32.shl (local.get $fd) (i32.const 12))))

  (func $put (param $fd i32) (param $from i32) (param $len i32)
    (local $line i32) (local $used i32) (local $byte i32)
    (local.set $line (call $line (local.get $fd)))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $len)))
        (local.set $byte (i32.load8_u (local.get $from)))
        (local.set $from (i32.add (local.get $from) (i32.const 1)))
        (local.set $len (i32.sub (local.get $len) (i32.const 1)))
        (if (i32.eq (local.get $byte) (i32.const 10)) ;; end of line
          (then (call $flush (local.get $fd)) (br $next)))
        (if (i32.eq (i32.load (local.get $line)) (global.get $MAX_LINE))
          (then (call $flush (local.get $fd))))
        (local.set $used (i32.load (local.get $line)))
        (i32.store8 offset=4 (i32.add (local.get $line) (local.get $used)) (local.get $byte))
        (i32.store (local.get $line) (i32.add (local.get $used) (i32.const 1)))
        (br $next))))

  ;; Logs what the line has, if anything: stdout (1) as info (2), stderr (2) as warn (3).
  (func $flush (param $fd i32)
    (local $line i32) (local $text i32) (local $len i32)
    (local.set $line (call $line (local.get $fd)))
    (local.set $text (i32.add (local.get $line) (i32.const 4)))
    (local.set $len (i32.load (local.get $line)))
    (if (i32.eqz (local.get $len)) (then (return)))
    (i32.store (local.get $line) (i32.const 0))
    (call $make-utf8 (local.get $text) (local.get $len))
    (call $log (i32.add (local.get $fd) (i32.const 1)) (local.get $text) (local.get $len)))

  ;; A string that is not UTF-8 may not cross the border of a component: that traps. `?` takes the place of each byte that is wrong.
  (func $make-utf8 (param $at i32) (param $len i32)
    (local $end i32) (local $step i32)
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $step (call $sequence (local.get $at) (local.get $end)))
        (if (i32.eqz (local.get $step))
          (then
            (i32.store8 (local.get $at) (i32.const 63)) ;; ?
            (local.set $step (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (local.get $step)))
        (br $next))))

  ;; How many bytes the character at $at has; 0 when it is none (Unicode, table 3-7).
  (func $sequence (param $at i32) (param $end i32) (result i32)
    (local $lead i32) (local $second i32) (local $n i32) (local $low i32) (local $high i32)
    (local.set $lead (i32.load8_u (local.get $at)))
    (if (i32.lt_u (local.get $lead) (i32.const 0x80)) (then (return (i32.const 1))))
    (if (i32.or (i32.lt_u (local.get $lead) (i32.const 0xc2)) (i32.gt_u (local.get $lead) (i32.const 0xf4)))
      (then (return (i32.const 0))))
    (local.set $n
      (i32.add (i32.const 2)
        (i32.add (i32.ge_u (local.get $lead) (i32.const 0xe0)) (i32.ge_u (local.get $lead) (i32.const 0xf0)))))
    (if (i32.gt_u (local.get $n) (i32.sub (local.get $end) (local.get $at))) (then (return (i32.const 0))))
    ;; not longer than need be, no surrogates, nothing above U+10FFFF
    (local.set $low (i32.const 0x80))
    (local.set $high (i32.const 0xbf))
    (if (i32.eq (local.get $lead) (i32.const 0xe0)) (then (local.set $low (i32.const 0xa0))))
    (if (i32.eq (local.get $lead) (i32.const 0xed)) (then (local.set $high (i32.const 0x9f))))
    (if (i32.eq (local.get $lead) (i32.const 0xf0)) (then (local.set $low (i32.const 0x90))))
    (if (i32.eq (local.get $lead) (i32.const 0xf4)) (then (local.set $high (i32.const 0x8f))))
    (local.set $second (i32.load8_u offset=1 (local.get $at)))
    (if (i32.lt_u (local.get $second) (local.get $low)) (then (return (i32.const 0))))
    (if (i32.gt_u (local.get $second) (local.get $high)) (then (return (i32.const 0))))
    (if (i32.ge_u (local.get $n) (i32.const 3))
      (then (if (call $not-continuation (i32.load8_u offset=2 (local.get $at))) (then (return (i32.const 0))))))
    (if (i32.eq (local.get $n) (i32.const 4))
      (then (if (call $not-continuation (i32.load8_u offset=3 (local.get $at))) (then (return (i32.const 0))))))
    (local.get $n))

  (func $not-continuation (param $byte i32) (result i32)
    (i32.ne (i32.and (local.get $byte) (i32.const 0xc0)) (i32.const 0x80)))

  ;; What there is not.

  (func (export "proc_raise") (param i32) (result i32) (global.get $ENOSYS))
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) (global.get $EBADF))
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) (global.get $EBADF))
  (func (export "fd_close") (param i32) (result i32) (global.get $EBADF))
  (func (export "fd_datasync") (param i32) (result i32) (global.get $EBADF))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (global.get $EBADF))
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) (global.get $EBADF))
  (func (export "fd_filestat_get") (param i32 i32) (result i32) (global.get $EBADF))
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) (global.get $EBADF))
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) (global.get $EBADF))
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) (global.get $EBADF))
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) (global.get $EBADF))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) (global.get $EBADF))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) (global.get $EBADF))
  (func (export "fd_renumber") (param i32 i32) (result i32) (global.get $EBADF))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (global.get $EBADF))
  (func (export "fd_sync") (param i32) (result i32) (global.get $EBADF))
  (func (export "fd_tell") (param i32 i32) (result i32) (global.get $EBADF))
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) (call $refused (call $path_create_directory)))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) (call $refused (call $path_filestat_get)))
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) (call $refused (call $path_filestat_set_times)))
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (call $refused (call $path_link)))
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) (call $refused (call $path_open)))
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) (call $refused (call $path_readlink)))
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) (call $refused (call $path_remove_directory)))
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) (call $refused (call $path_rename)))
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) (call $refused (call $path_symlink)))
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) (call $refused (call $path_unlink_file)))
  (func (export "sock_accept") (param i32 i32 i32) (result i32) (call $refused (call $sock_accept)))
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) (call $refused (call $sock_recv)))
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) (call $refused (call $sock_send)))
  (func (export "sock_shutdown") (param i32 i32) (result i32) (call $refused (call $sock_shutdown)))
)
