//! The watched folder: whatever way files come, change and go, what lies there is in use.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// A plugin of one tunnel: its last digit is `n`.
fn routes_to(n: u8) -> Vec<u8> {
    let text = fs::read_to_string("tests/data/guests/fixed.wat").unwrap();
    wat::parse_str(text.replace(TUNNEL, &tunnel(n))).unwrap()
}

fn tunnel(n: u8) -> String {
    format!("4d21094e-b74c-4916-86c1-d9fa36ea67{n:02x}")
}

struct Watched {
    dir: tempfile::TempDir,
    folder: Arc<Folder>,
    chain: Chain,
}

impl Watched {
    /// Watches `plugins` below a folder of its own after `prepare`.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        Self::looking(prepare, |settings| settings)
    }

    fn looking(prepare: impl FnOnce(&Path), how: impl FnOnce(FolderSettings) -> FolderSettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let folder = Folder::new(&runtime(), how(FolderSettings::new(dir.path().join("plugins"))));
        folder.watch().wait();
        let chain = Chain::folder(Arc::clone(&folder), rules(&[]));
        Self { dir, folder, chain }
    }

    fn with(n: u8) -> Self {
        Self::new(|dir| {
            fs::create_dir(dir.join("plugins")).unwrap();
            fs::write(dir.join("plugins/p.wasm"), routes_to(n)).unwrap();
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("plugins").join(name)
    }

    /// Where a request goes now: the number of its tunnel, or nowhere. A failure would be an error.
    async fn to(&self) -> Option<u8> {
        match ask(&self.chain, "a.example").await.unwrap() {
            Verdict::Use(endpoint) => {
                let text = endpoint.tunnel.to_string();
                Some(u8::from_str_radix(&text[text.len() - 2..], 16).unwrap())
            }
            _ => None,
        }
    }

    async fn becomes(&self, n: Option<u8>) {
        eventually(&format!("{n:?} answers"), async || (self.to().await == n).then_some(())).await;
    }

    /// The same of what was told by the system: the next look without that is half a minute away.
    async fn becomes_soon(&self, n: Option<u8>) {
        tokio::time::timeout(Duration::from_secs(10), self.becomes(n)).await.unwrap();
    }

    /// Waits for a failure with these words; the version that answers is still `n`.
    async fn fails(&self, words: &str, n: u8) {
        let told =
            || self.folder.status().iter().any(|s| s.last_error.as_ref().is_some_and(|e| e.contains(words)));
        eventually(words, async || told().then_some(())).await;
        assert_eq!(self.to().await, Some(n));
    }
}

#[tokio::test]
async fn files_come_change_and_go() {
    let watched = Watched::with(1);
    assert_eq!(watched.to().await, Some(1), "what is there at the start is in use at once");
    // In place of the old one.
    fs::write(watched.file("p.wasm"), routes_to(2)).unwrap();
    watched.becomes(Some(2)).await;
    // By a rename into place, from within and from without.
    fs::write(watched.file(".p.wasm.tmp"), routes_to(3)).unwrap();
    fs::rename(watched.file(".p.wasm.tmp"), watched.file("p.wasm")).unwrap();
    watched.becomes(Some(3)).await;
    fs::write(watched.dir.path().join("outside"), routes_to(4)).unwrap();
    fs::rename(watched.dir.path().join("outside"), watched.file("p.wasm")).unwrap();
    watched.becomes(Some(4)).await;
    // Back to what it was, with the same content as another.
    fs::write(watched.file("a.wasm"), routes_to(4)).unwrap();
    eventually("both are in use", async || (watched.folder.ingress().len() == 2).then_some(())).await;
    fs::remove_file(watched.file("p.wasm")).unwrap();
    eventually("one is left", async || (watched.folder.ingress().len() == 1).then_some(())).await;
    assert_eq!(watched.to().await, Some(4));
    fs::remove_file(watched.file("a.wasm")).unwrap();
    watched.becomes(None).await;
    fs::write(watched.file("p.wasm"), routes_to(5)).unwrap();
    watched.becomes(Some(5)).await;
}

/// A file that takes longer to write than anyone waits for is tried, found wanting, and tried again when it is whole.
#[tokio::test]
async fn a_file_written_in_pieces_is_taken_when_it_is_whole() {
    use std::io::Write;
    let watched = Watched::with(1);
    let code = routes_to(2);
    let mut file = fs::File::create(watched.file("p.wasm")).unwrap();
    file.write_all(&code[..code.len() / 2]).unwrap();
    watched.fails("not a whole WebAssembly module", 1).await;
    file.write_all(&code[code.len() / 2..]).unwrap();
    drop(file);
    watched.becomes(Some(2)).await;
    assert_eq!(watched.folder.status()[0].last_error, None);
    fs::write(watched.file("p.wasm"), "no plugin").unwrap();
    watched.fails("not WebAssembly", 2).await;
}

/// Where the system tells of nothing, looking is enough.
#[tokio::test]
async fn a_folder_that_is_polled() {
    use std::io::Write;
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("plugins")).unwrap();
        fs::write(dir.join("plugins/p.wasm"), routes_to(1)).unwrap();
    };
    let polled = |of| FolderSettings { told: false, poll: Duration::from_millis(20), ..of };
    let watched = Watched::looking(prepare, polled);
    assert_eq!(watched.to().await, Some(1));
    fs::write(watched.file("p.wasm"), routes_to(2)).unwrap();
    watched.becomes(Some(2)).await;
    fs::write(watched.file(".new"), routes_to(3)).unwrap();
    fs::rename(watched.file(".new"), watched.file("p.wasm")).unwrap();
    watched.becomes(Some(3)).await;
    let code = routes_to(4);
    let mut file = fs::File::create(watched.file("p.wasm")).unwrap();
    file.write_all(&code[..code.len() / 2]).unwrap();
    watched.fails("not a whole WebAssembly module", 3).await;
    file.write_all(&code[code.len() / 2..]).unwrap();
    watched.becomes(Some(4)).await;
    fs::write(watched.file("a.wasm"), routes_to(5)).unwrap();
    watched.becomes(Some(5)).await;
    fs::remove_file(watched.file("a.wasm")).unwrap();
    watched.becomes(Some(4)).await;
    fs::remove_file(watched.file("p.wasm")).unwrap();
    watched.becomes(None).await;
}

/// A configuration has no end that could be missing: what its writer has done with it is all there is to go by.
#[tokio::test]
async fn half_a_configuration_is_never_tried() {
    written_slowly(Watched::with(1), 4).await;
}

/// The system tells of files by their absolute paths.
#[tokio::test]
async fn nor_is_it_in_a_folder_named_from_the_current_one() {
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("plugins")).unwrap();
        fs::write(dir.join("plugins/p.wasm"), routes_to(1)).unwrap();
    };
    let watched = Watched::looking(prepare, |settings| {
        let up = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect::<PathBuf>();
        FolderSettings { dir: up.join(settings.dir.strip_prefix("/").unwrap()), ..settings }
    });
    written_slowly(watched, 1).await;
}

async fn written_slowly(watched: Watched, times: u64) {
    use std::io::{Seek, Write};
    for n in 0..times {
        let mut file = fs::File::create(watched.file("p.yaml")).unwrap();
        file.write_all(b"bad").unwrap();
        // Longer than a file has to be still that nobody has open.
        let until = Instant::now() + Duration::from_millis(400);
        while Instant::now() < until {
            assert_eq!(watched.to().await, Some(1));
            assert_eq!(watched.folder.status()[0].last_error, None);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        file.rewind().unwrap();
        file.write_all(format!("good {n}").as_bytes()).unwrap();
        drop(file);
        let swaps = || (watched.folder.status()[0].counts.swaps == n + 1).then_some(());
        eventually("it is taken", async || swaps()).await;
    }
}

/// A table that only the new code fits, copied a moment before it.
#[tokio::test]
async fn files_that_are_copied_one_after_another_are_tried_together() {
    let watched = Watched::with(1);
    let table =
        format!("cases: [{{ request: {{ hostname: a.example }}, expect: {{ tunnel: {} }} }}]", tunnel(2));
    fs::write(watched.file("p.cases.yaml"), table).unwrap();
    let until = Instant::now() + Duration::from_millis(50);
    eventually("the code is copied too", async || (Instant::now() > until).then_some(())).await;
    fs::write(watched.file("p.wasm"), routes_to(2)).unwrap();
    while watched.to().await == Some(1) {
        assert_eq!(watched.folder.status()[0].last_error, None);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(watched.to().await, Some(2));
}

#[tokio::test]
async fn configuration_and_table_alone_take_effect() {
    let watched = Watched::with(1);
    let version = watched.folder.status()[0].version.clone();
    fs::write(watched.file("p.yaml"), "bad").unwrap();
    watched.fails("configure: bad configuration", 1).await;
    fs::write(watched.file("p.yaml"), "good").unwrap();
    eventually("it is taken", async || (watched.folder.status()[0].counts.swaps == 1).then_some(())).await;
    assert_eq!(watched.folder.status()[0].version, version);
    let table =
        |n| format!("cases:\n- request: {{ hostname: a.example }}\n  expect: {{ tunnel: {} }}\n", tunnel(n));
    fs::write(watched.file("p.cases.yaml"), table(2)).unwrap();
    watched.fails("1 of 1 cases", 1).await;
    fs::write(watched.file("p.wasm"), routes_to(3)).unwrap();
    watched.fails(&format!("got {{ tunnel: {} }}", tunnel(3)), 1).await;
    fs::write(watched.file("p.wasm"), routes_to(2)).unwrap();
    watched.becomes(Some(2)).await;
    fs::write(watched.file("p.cases.yaml"), "cases: [").unwrap();
    watched.fails("decision table", 2).await;
    fs::write(watched.file("p.yaml"), b"\xff").unwrap();
    watched.fails("p.yaml is not UTF-8", 2).await;
}

/// What editors and copying programs leave is no plugin, and neither are folders and odd names.
#[tokio::test]
async fn other_files_are_left_alone() {
    let watched = Watched::with(1);
    for name in [
        "p.wasm~",
        ".p.wasm.swp",
        "#p.wasm#",
        ".hidden.wasm",
        "p.wasm.tmp",
        "4913",
        "q.wat",
        ".wasm",
        "a b.wasm",
    ] {
        fs::write(watched.file(name), routes_to(9)).unwrap();
    }
    fs::create_dir(watched.file("dir.wasm")).unwrap();
    symlink("nowhere", watched.file("link.wasm")).unwrap();
    fs::write(watched.file("p.wasm"), routes_to(2)).unwrap();
    watched.becomes(Some(2)).await;
    let names: Vec<_> = watched.folder.status().into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["p"]);
}

/// The last one wins, and nobody is turned away meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_replacements_in_a_second() {
    let watched = Watched::with(0);
    let codes: Vec<_> = (0..=100).map(routes_to).collect();
    let (folder, target) = (watched.dir.path().join("plugins"), watched.file("p.wasm"));
    let writer = tokio::task::spawn_blocking(move || {
        for (n, code) in codes.iter().enumerate() {
            // By turns in place and by a rename.
            if n % 2 == 0 {
                let half = folder.join(".half");
                fs::write(&half, code).unwrap();
                fs::rename(&half, &target).unwrap();
            } else {
                fs::write(&target, code).unwrap();
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    });
    let mut asked = 0;
    while !writer.is_finished() {
        assert!(watched.to().await.is_some());
        asked += 1;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    watched.becomes(Some(100)).await;
    let status = &watched.folder.status()[0];
    assert!(status.counts.swaps > 2 && asked > 100, "{} swaps, {asked} requests", status.counts.swaps);
    assert_eq!(status.counts.errors, 0);
}

#[tokio::test]
async fn a_folder_that_comes_goes_and_comes_back() {
    let watched = Watched::new(|_| {});
    assert_eq!(watched.to().await, None);
    let dir = watched.dir.path().join("plugins");
    fs::create_dir(&dir).unwrap();
    fs::write(watched.file("p.wasm"), routes_to(1)).unwrap();
    watched.becomes(Some(1)).await;
    fs::remove_dir_all(&dir).unwrap();
    // Its plugins stay until it is back.
    assert_eq!(watched.to().await, Some(1));
    fs::create_dir(&dir).unwrap();
    watched.becomes(None).await;
    fs::write(watched.file("p.wasm"), routes_to(2)).unwrap();
    watched.becomes(Some(2)).await;
    let other = watched.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("p.wasm"), routes_to(3)).unwrap();
    fs::rename(&dir, watched.dir.path().join("old")).unwrap();
    fs::rename(&other, &dir).unwrap();
    watched.becomes(Some(3)).await;
    fs::write(watched.file("p.wasm"), routes_to(4)).unwrap();
    watched.becomes(Some(4)).await;
}

/// A link that is made to lead elsewhere: to the folder, and inside it as Kubernetes does with a ConfigMap.
#[tokio::test]
async fn links_that_are_switched() {
    let set = |dir: &Path, name: &str, n: u8| {
        fs::create_dir(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("p.wasm"), routes_to(n)).unwrap();
    };
    let switch = |dir: &Path, link: &str, to: &str| {
        symlink(to, dir.join("new")).unwrap();
        fs::rename(dir.join("new"), dir.join(link)).unwrap();
    };
    let watched = Watched::new(|dir| {
        set(dir, "one", 1);
        fs::create_dir(dir.join("releases")).unwrap();
        symlink("../one", dir.join("releases/current")).unwrap();
        symlink("releases/current", dir.join("plugins")).unwrap();
    });
    let dir = watched.dir.path();
    assert_eq!(watched.to().await, Some(1));
    set(dir, "two", 9);
    switch(&dir.join("releases"), "current", "../two");
    watched.becomes(Some(9)).await;
    fs::write(dir.join("two/p.wasm"), routes_to(2)).unwrap();
    watched.becomes(Some(2)).await;
    switch(dir, "plugins", "one");
    watched.becomes(Some(1)).await;
    switch(dir, "plugins", "two");
    watched.becomes(Some(2)).await;
    fs::write(dir.join("two/p.wasm"), routes_to(3)).unwrap();
    watched.becomes(Some(3)).await;
    let mounted = Watched::new(|dir| {
        let dir = dir.join("plugins");
        fs::create_dir(&dir).unwrap();
        set(&dir, "..2026_1", 4);
        symlink("..2026_1", dir.join("..data")).unwrap();
        symlink("..data/p.wasm", dir.join("p.wasm")).unwrap();
    });
    assert_eq!(mounted.to().await, Some(4));
    let dir = mounted.dir.path().join("plugins");
    set(&dir, "..2026_2", 5);
    switch(&dir, "..data", "..2026_2");
    fs::remove_dir_all(dir.join("..2026_1")).unwrap();
    mounted.becomes(Some(5)).await;
    assert_eq!(mounted.folder.status()[0].counts.errors, 0);
}

/// Files outside of the folder that links in it name, and a folder around it that is exchanged.
#[tokio::test]
async fn what_an_author_builds_and_what_a_deployment_exchanges() {
    let watched = Watched::new(|dir| {
        fs::create_dir_all(dir.join("built")).unwrap();
        fs::create_dir(dir.join("plugins")).unwrap();
        fs::write(dir.join("built/p.wasm"), routes_to(1)).unwrap();
        symlink("../built/p.wasm", dir.join("plugins/p.wasm")).unwrap();
    });
    let dir = watched.dir.path();
    assert_eq!(watched.to().await, Some(1));
    fs::write(dir.join("built/p.wasm"), routes_to(2)).unwrap();
    watched.becomes_soon(Some(2)).await;
    fs::write(dir.join("built/new"), routes_to(3)).unwrap();
    fs::rename(dir.join("built/new"), dir.join("built/p.wasm")).unwrap();
    watched.becomes_soon(Some(3)).await;

    let prepare = |dir: &Path| {
        for (name, n) in [("app", 4), ("next", 5)] {
            fs::create_dir_all(dir.join(name).join("plugins")).unwrap();
            fs::write(dir.join(name).join("plugins/p.wasm"), routes_to(n)).unwrap();
        }
    };
    let below = Watched::looking(prepare, |settings| {
        FolderSettings::new(settings.dir.parent().unwrap().join("app/plugins"))
    });
    let dir = below.dir.path();
    assert_eq!(below.to().await, Some(4));
    fs::rename(dir.join("app"), dir.join("old")).unwrap();
    fs::rename(dir.join("next"), dir.join("app")).unwrap();
    below.becomes_soon(Some(5)).await;
}

/// A pipe where a configuration should be, to which nobody writes, and a folder.
#[tokio::test]
async fn what_is_no_file_is_told_and_holds_up_nobody() {
    let watched = Watched::with(1);
    let mode = rustix::fs::Mode::RWXU;
    let pipe = watched.file("p.yaml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    fs::create_dir(watched.file("q.yaml")).unwrap();
    for name in ["p.wasm", "q.wasm"] {
        fs::write(watched.file(name), routes_to(2)).unwrap();
    }
    for name in ["p", "q"] {
        eventually("the reason is told", async || {
            let all = watched.folder.status();
            let error = all.into_iter().find(|status| status.name == name)?.last_error?;
            (error.contains(&format!("{name}.yaml")) && error.contains("no file")).then_some(())
        })
        .await;
    }
    assert_eq!(watched.to().await, Some(1));
    fs::remove_file(pipe).unwrap();
    watched.becomes(Some(2)).await;
}

/// One bad file of many is the only one that is missing.
#[tokio::test]
async fn two_hundred_plugins_of_which_one_is_bad() {
    let watched = Watched::new(|dir| {
        fs::create_dir(dir.join("plugins")).unwrap();
        let (good, bad) = (guest("fixed"), guest("bad"));
        for n in 0..200 {
            let code = marked(if n == 77 { &bad } else { &good }, &n.to_string());
            fs::write(dir.join(format!("plugins/{n:03}.wasm")), code).unwrap();
        }
        fs::write(dir.join("plugins/077.yaml"), "t").unwrap();
    });
    eventually("all but one are in use", async || (watched.folder.ingress().len() == 199).then_some(()))
        .await;
    assert_eq!(watched.to().await, Some(0x7b));
    assert_eq!(answer(&watched.chain, "pass.example").await, "pass", "all were asked");
    let failed: Vec<_> = watched.folder.status().into_iter().filter(|s| s.version.is_none()).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].name == "077" && failed[0].last_error.as_ref().unwrap().contains("unreachable"));
    assert!(watched.folder.status().iter().filter(|s| s.version.is_some()).all(|s| s.counts.errors == 0));
}

/// Neither at the start nor while it runs: with traffic, which another plugin answers.
#[tokio::test]
async fn an_endless_loop_in_configure_holds_up_no_other_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("00.wasm"), guest("bad")).unwrap();
    fs::write(file("00.yaml"), "l").unwrap();
    fs::write(file("10.wasm"), guest("fixed")).unwrap();
    let limits = Limits { configure_deadline: Duration::from_secs(4), ..Limits::default() };
    let folder = folder(&runtime_with(limits), dir.path());
    let chain = Chain::folder(Arc::clone(&folder), rules(&[]));
    let error = || folder.status()[0].last_error.clone();
    let _first = folder.watch();
    eventually("it answers", async || (answer(&chain, "a.example").await == "tunnel").then_some(())).await;
    assert_eq!(error(), None, "the other is still at it");
    fs::write(file("10.yaml"), "good").unwrap();
    let swapped = || folder.status()[1].counts.swaps == 1;
    eventually("it is configured anew", async || swapped().then_some(())).await;
    assert_eq!(error(), None, "the other is still at it");
    let error = eventually("the other is given up", async || {
        assert_eq!(answer(&chain, "a.example").await, "tunnel");
        error()
    });
    assert!(error.await.contains("plugins.limits.configureDeadline"));
    assert_eq!(answer(&chain, "a.example").await, "tunnel");
}
