//! Limits, each obeyed and violated, the compiled cache, and the counts that tell of both.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn with(change: impl FnOnce(&mut Limits)) -> Runtime {
    let mut limits = Limits::default();
    change(&mut limits);
    runtime_with(limits)
}

/// A guest whose memory grows by a page with each call, from 2.
fn growing() -> Vec<u8> {
    let text = fs::read_to_string("tests/data/guests/fixed.wat").unwrap();
    let grow = "(local.set $kind (call $first_byte";
    wat::parse_str(text.replace(grow, &format!("(drop (memory.grow (i32.const 1)))\n{grow}"))).unwrap()
}

#[tokio::test]
async fn memory_is_what_the_limit_says() {
    let plugin = Plugin::new(&with(|l| l.memory = 1 << 20), "p");
    plugin.install(&source(growing())).unwrap();
    let chain = bound(&plugin, OnError::Refuse);
    for _ in 0..50 {
        // Beyond the limit memory.grow says no, and the guest goes on.
        assert_eq!(answer(&chain, "a.example").await, "tunnel");
    }
    let memory = plugin.status().counts.memory;
    assert!((10 << 16..=1 << 20).contains(&memory), "{memory}");
    let text = fs::read_to_string("tests/data/guests/fixed.wat").unwrap();
    let needs = |pages: u32| {
        wat::parse_str(text.replace("\"memory\") 2)", &format!("\"memory\") {pages})"))).unwrap()
    };
    plugin.install(&source(needs(16))).unwrap();
    let error = plugin.install(&source(needs(17))).unwrap_err().to_string();
    assert!(error.contains("memory") && error.contains("plugins.limits.memory"), "{error}");
    assert_eq!(answer(&chain, "a.example").await, "tunnel");
}

/// A memory that may not grow by its own type is asked for in vain, and not counted.
#[tokio::test]
async fn memory_that_was_not_given_is_not_counted() {
    let text = fs::read_to_string("tests/data/guests/fixed.wat").unwrap();
    let text = text.replace("\"memory\") 2)", "\"memory\") 2 2)");
    let grow = "(local.set $kind (call $first_byte";
    let code =
        wat::parse_str(text.replace(grow, &format!("(drop (memory.grow (i32.const 100)))\n{grow}"))).unwrap();
    let plugin = Plugin::new(&runtime(), "p");
    plugin.install(&source(code)).unwrap();
    let chain = bound(&plugin, OnError::Refuse);
    for _ in 0..20 {
        assert_eq!(answer(&chain, "a.example").await, "tunnel");
    }
    assert_eq!((plugin.status().counts.memory, plugin.status().counts.recycled), (2 << 16, 0));
}

#[tokio::test]
async fn instances_are_replaced_after_so_many_calls_and_so_much_memory() {
    let plugin = plugin(&with(|l| (l.recycle_calls, l.instances) = (3, 1)), "fixed");
    let chain = bound(&plugin, OnError::Refuse);
    for _ in 0..9 {
        assert_eq!(answer(&chain, "a.example").await, "tunnel");
    }
    assert_eq!(plugin.status().counts.recycled, 3);
    let plugin = Plugin::new(&with(|l| (l.recycle_memory, l.instances) = (5 << 16, 1)), "p");
    plugin.install(&source(growing())).unwrap();
    let chain = bound(&plugin, OnError::Refuse);
    for _ in 0..9 {
        assert_eq!(answer(&chain, "a.example").await, "tunnel");
    }
    // 2 pages at first, 5 after the third call.
    assert_eq!(plugin.status().counts.recycled, 3);
}

#[tokio::test]
async fn a_deadline_may_be_as_long_as_somebody_wants() {
    let plugin = plugin(&with(|l| l.deadline = Duration::from_millis(400)), "fixed");
    let chain = bound(&plugin, OnError::Refuse);
    let began = Instant::now();
    assert!(answer(&chain, "l.example").await.contains("no answer within 400ms"));
    assert!(began.elapsed() >= Duration::from_millis(390), "{:?}", began.elapsed());
}

/// Decisions that have to wait take a place; there are no more than the setting says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_so() {
    let plugin = plugin(&with(|l| (l.queue, l.deadline) = (4, Duration::from_millis(200))), "fixed");
    let chain = bound(&plugin, OnError::Refuse);
    assert!(answer(&chain, "l.example").await.contains("no answer within"));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let chain = chain.clone();
            tokio::spawn(async move { answer(&chain, "l.example").await })
        })
        .collect();
    let (mut full, mut overrun) = (0, 0);
    for call in calls {
        let said = call.await.unwrap();
        full += i32::from(said.contains("4 decisions wait for this plugin already (plugins.limits.queue)"));
        overrun += i32::from(said.contains("no answer within 200ms"));
    }
    assert_eq!((full, overrun), (16, 4));
    assert_eq!(answer(&chain, "a.example").await, "tunnel");
}

#[tokio::test]
async fn the_store_has_as_many_keys_and_bytes_as_the_settings_say() {
    let tells = bound(&plugin(&with(|l| l.store_keys = 2), "tells"), OnError::Refuse);
    assert_eq!((answer(&tells, "sa").await, answer(&tells, "sb").await), ("400".into(), "400".into()));
    assert_eq!(answer(&tells, "sc").await, "402", "full");
    assert_eq!((answer(&tells, "xa").await, answer(&tells, "sc").await), ("401".into(), "400".into()));
    let tells = bound(&plugin(&with(|l| l.store_size = 100), "tells"), OnError::Refuse);
    assert_eq!((answer(&tells, "sa").await, answer(&tells, "sb").await), ("400".into(), "402".into()));
}

#[tokio::test]
async fn kept_answers_are_as_many_as_the_setting_says() {
    let plugin = plugin(&with(|l| l.cached_decisions = 10), "fixed");
    let chain = bound(&plugin, OnError::Refuse);
    for _ in 0..2 {
        for n in 0..100 {
            answer(&chain, &format!("c{n}.example")).await;
        }
    }
    let counts = plugin.status().counts;
    assert!(counts.calls >= 180, "{counts:?}");
    assert_eq!(counts.calls + counts.cache_hits, 200);
}

fn compiled_files(dir: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn compiled_code_is_kept_checked_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let install = |code: &[u8]| {
        let runtime = Runtime::new(Limits::default(), CompiledCache::open(&cache).unwrap()).unwrap();
        Plugin::new(&runtime, "p").install(&source(code.to_vec())).unwrap();
    };
    let fixed = guest("fixed");
    install(&fixed);
    let [file] = &compiled_files(&cache)[..] else { panic!("one file") };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&cache), mode(file)), (0o700, 0o600));
    let written = || (fs::metadata(file).unwrap().modified().unwrap(), fs::read(file).unwrap());
    let first = written();
    install(&fixed);
    assert_eq!(written().0, first.0, "it is taken from the cache");
    for spoil in [
        |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1,
        |bytes: &mut Vec<u8>| bytes[0] ^= 1,
        |bytes: &mut Vec<u8>| bytes.truncate(40),
        |bytes: &mut Vec<u8>| bytes.clear(),
    ] {
        let mut bytes = first.1.clone();
        spoil(&mut bytes);
        fs::write(file, &bytes).unwrap();
        install(&fixed);
        let again = written().1;
        assert!(again.len() == first.1.len() && again != bytes, "it is compiled again");
    }
    // Somebody else may have written it.
    fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
    install(&fixed);
    assert_eq!(mode(file), 0o600, "it is compiled again");
    for n in 0..270 {
        fs::write(cache.join(format!("old{n}")), "").unwrap();
    }
    install(&marked(&fixed, "2"));
    assert_eq!(compiled_files(&cache).len(), 256);
}

#[test]
fn a_cache_that_others_can_write_to_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let error = CompiledCache::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("mode 0700") && error.contains(dir.path().to_str().unwrap()), "{error}");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    CompiledCache::open(dir.path()).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert!(CompiledCache::open(&link).is_err(), "a link may be made to lead elsewhere");
}

#[tokio::test]
async fn the_status_tells_what_was_done() {
    let plugin = plugin(&runtime(), "fixed");
    let status = plugin.status();
    let version = status.version.unwrap();
    assert!(version.len() == 12 && status.kinds == ["ingress"] && status.last_swap.is_some());
    assert_eq!((status.last_error, status.counts.calls, status.counts.swaps), (None, 0, 0));
    let chain = bound(&plugin, OnError::Refuse);
    for host in ["a.example", "e.example", "t.example", "l.example", "c.example", "c.example", "p.example"] {
        answer(&chain, host).await;
    }
    let status = plugin.status();
    let counts = &status.counts;
    assert_eq!((counts.calls, counts.errors, counts.traps, counts.overruns), (6, 3, 1, 1));
    assert_eq!((counts.cache_hits, counts.recycled, counts.memory), (1, 0, 2 << 16));
    assert_eq!(counts.latency.iter().sum::<u64>(), 6);
    assert_eq!(counts.latency.last(), Some(&1), "the loop took longer than the last bucket");
    assert!(counts.call_seconds > 0.05, "{}", counts.call_seconds);
    assert!(status.last_error.unwrap().contains("plugins.limits.deadline"));
    plugin.install(&source(marked(&guest("fixed"), "2"))).unwrap();
    let status = plugin.status();
    assert!(status.version.unwrap() != version && status.last_error.is_none() && status.counts.swaps == 1);
    assert_eq!(status.counts.calls, 6, "counts go on");
    assert!(plugin.install(&source(vec![1])).is_err());
    assert!(plugin.status().last_error.unwrap().contains("not WebAssembly"));
    plugin.remove();
    let status = plugin.status();
    assert_eq!((status.version, status.kinds), (None, Vec::new()));
}
