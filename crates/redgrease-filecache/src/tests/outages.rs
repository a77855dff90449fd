//! Changed directories, servers that return or evict, threads and readers that have ended.

use std::path::Path;
use std::time::{Duration, Instant};

use super::server::TestServer;
use crate::{Code, Depth, FileCache, Finding, Level, OnOutage, Options, ProblemKind, Put, aio};

const NOW: Duration = Duration::ZERO;

/// Maximum time of any wait.
const DEADLINE: Duration = Duration::from_secs(30);

fn at(directory: &Path) -> Options {
    Options { maintenance: None, ..Options::new(directory.join("cache")) }
}

fn wait_until<T: std::fmt::Debug>(what: &str, look: impl Fn() -> T, is_fine: impl Fn(&T) -> bool) {
    let end = Instant::now() + DEADLINE;
    loop {
        let seen = look();
        if is_fine(&seen) {
            return;
        }
        assert!(Instant::now() < end, "after {DEADLINE:?} still not: {what}; last seen: {seen:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The findings of `doctor` of the level `Error` about the directory.
fn directory_errors(cache: &FileCache) -> Vec<String> {
    let is_one = |found: &Finding| found.level == Level::Error && found.name == "directory";
    cache.doctor().unwrap().into_iter().filter(is_one).map(|found| found.message).collect()
}

fn problems(cache: &FileCache, repair: bool) -> Vec<(ProblemKind, String, bool)> {
    let found = if repair {
        cache.repair(Depth::Digests, &mut |_, _| true)
    } else {
        cache.verify(Depth::Digests, &mut |_, _| true)
    };
    found.unwrap().problems.into_iter().map(|found| (found.kind, found.name, found.repaired)).collect()
}

/// Replaces a directory by something else, and returns a function that restores it.
fn replace_directory(root: &Path, name: &str, with_link: bool) -> impl FnOnce() + use<> {
    let (path, aside) = (root.join(name), root.with_file_name("aside"));
    std::fs::rename(&path, &aside).unwrap();
    if with_link {
        std::os::unix::fs::symlink(&aside, &path).unwrap();
    } else {
        std::fs::write(&path, "").unwrap();
    }
    move || {
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
    }
}

#[test]
fn a_directory_that_became_something_else_is_named_and_nothing_is_taken_out() {
    let server = TestServer::start();
    for (with_server, with_link) in [(false, true), (false, false), (true, true)] {
        let directory = tempfile::tempdir().unwrap();
        let mut options = at(directory.path());
        options.url = with_server.then(|| server.url());
        options.namespace = format!("planted-{with_server}-{with_link}");
        let cache = FileCache::open(options.clone()).unwrap();
        cache.write("a", b"a", &Put::default()).unwrap();
        cache.write("b", b"b", &Put::default()).unwrap();
        assert_eq!((directory_errors(&cache), problems(&cache, false)), (vec![], vec![]));
        for name in ["files", "temporary", "quarantine"] {
            let release_token = replace_directory(&options.directory, name, with_link);
            let what = format!("{name} is {}", if with_link { "a symbolic link" } else { "no directory" });
            let [said] = &directory_errors(&cache)[..] else { panic!("{:?}", cache.doctor()) };
            assert!(said.contains(&what) && said.contains("restore the directory"), "{said}");
            let expected = vec![(ProblemKind::Foreign, name.to_owned(), false)];
            assert_eq!((problems(&cache, false), problems(&cache, true)), (expected.clone(), expected));
            let error = match name {
                "files" => cache.read("a", NOW).unwrap_err(),
                "temporary" => cache.write("c", b"c", &Put::default()).unwrap_err(),
                _ => FileCache::open(options.clone()).unwrap_err(),
            };
            assert_eq!(error.code(), Code::Io, "{error}");
            assert!(error.to_string().contains(&what) && !error.to_string().contains("quarantine;"), "{error}");
            release_token();
            assert_eq!(cache.read("a", NOW).unwrap(), b"a");
        }
        if with_server {
            // An index that is lost meanwhile is not rebuilt without the entries.
            let release_token = replace_directory(&options.directory, "files", with_link);
            redis::cmd("FLUSHALL").query::<()>(&mut server.connection()).unwrap();
            assert_eq!(cache.read("a", NOW).unwrap_err().code(), Code::Io);
            release_token();
        }
        assert_eq!((cache.read("a", NOW).unwrap(), cache.read("b", NOW).unwrap()), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!((directory_errors(&cache), problems(&cache, false)), (vec![], vec![]));
    }
}

#[test]
fn a_damaged_file_that_cannot_be_moved_to_quarantine_is_not_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let options = at(directory.path());
    let cache = FileCache::open(options.clone()).unwrap();
    let damage = || {
        cache.replace("k", b"content", &Put::default()).unwrap();
        std::fs::write(cache.open_read("k", NOW).unwrap().path(), b"CONTENT").unwrap();
    };
    damage();
    let release_token = replace_directory(&options.directory, "quarantine", true);
    let error = cache.read("k", NOW).unwrap_err();
    assert_eq!(error.code(), Code::Corrupt);
    assert!(error.to_string().contains("cannot be moved to quarantine: quarantine is a symbolic link"), "{error}");
    release_token();
    damage();
    std::fs::remove_dir_all(options.directory.join("quarantine")).unwrap();
    let error = cache.read("k", NOW).unwrap_err().to_string();
    assert!(error.contains("it was moved to quarantine"), "{error}");
    assert_eq!(std::fs::read_dir(options.directory.join("quarantine")).unwrap().count(), 1);
}

#[test]
fn a_copy_of_a_directory_is_told_from_the_original() {
    let server = TestServer::start();
    for url in [None, Some(server.url())] {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { url, ..at(directory.path()) };
        let cache = FileCache::open(options.clone()).unwrap();
        cache.write("k", b"original", &Put::default()).unwrap();
        let copy = Options { directory: directory.path().join("copy"), ..options.clone() };
        let copied = std::process::Command::new("cp").arg("-a").arg(&options.directory).arg(&copy.directory).status();
        assert!(copied.unwrap().success());
        for copy in [copy.clone(), Options { read_only: true, ..copy.clone() }] {
            let error = FileCache::open(copy.clone()).unwrap_err();
            assert_eq!(error.code(), Code::BadConfig);
            let text = error.to_string();
            assert!(
                ["copy", "is a copy of a cache", "inode", "adopt"].iter().all(|words| text.contains(words)),
                "{text}"
            );
            let found = FileCache::doctor_unopened(&copy, &error);
            assert!(
                found.iter().any(|found| found.level == Level::Error && found.message.contains("is a copy")),
                "{found:?}"
            );
        }
        let adopted = Options { adopt: true, namespace: "own".to_owned(), ..copy.clone() };
        let own = FileCache::open(adopted.clone()).unwrap();
        assert_ne!(own.info().unwrap().id, cache.info().unwrap().id);
        own.replace("k", b"copy", &Put::default()).unwrap();
        assert!(own.delete("k").unwrap());
        own.maintain().unwrap();
        assert_eq!(cache.read("k", NOW).unwrap(), b"original");
        assert_eq!(problems(&cache, false), []);
        drop(FileCache::open(Options { adopt: false, ..adopted }).unwrap());
        // A directory that was renamed is not a copy.
        drop((own, cache));
        let moved = Options { directory: directory.path().join("moved"), ..options.clone() };
        std::fs::rename(&options.directory, &moved.directory).unwrap();
        assert_eq!(FileCache::open(moved).unwrap().read("k", NOW).unwrap(), b"original");
    }
}

#[test]
fn a_cache_of_another_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let options = at(directory.path());
    FileCache::open(options.clone()).unwrap().write("k", b"content", &Put::default()).unwrap();
    let marker = options.directory.join("CACHE");
    let current: serde_json::Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
    let mut earlier = current.clone();
    earlier["format"] = 1.into();
    // Of a later version, whose marker has other fields.
    let later = serde_json::json!({ "format": 99, "identity": 7 });
    for (other, format) in [(earlier, 1), (later, 99)] {
        std::fs::write(&marker, other.to_string()).unwrap();
        for (adopt, read_only) in [(false, false), (true, false), (false, true)] {
            let options = Options { adopt, read_only, ..options.clone() };
            let error = FileCache::open(options.clone()).unwrap_err();
            assert_eq!(error.code(), Code::BadConfig);
            let text = error.to_string();
            assert!(text.contains(&format!("has format {format}")) && text.contains("delete the directory"), "{text}");
            let is_named = |found: &Finding| found.name == "marker" && found.level == Level::Error;
            assert!(FileCache::doctor_unopened(&options, &error).iter().any(is_named));
        }
        assert_eq!(std::fs::read_to_string(&marker).unwrap(), other.to_string());
    }
    std::fs::write(&marker, current.to_string()).unwrap();
    assert_eq!(FileCache::open(options).unwrap().read("k", NOW).unwrap(), b"content");
}

#[test]
fn a_cache_that_was_made_without_its_place_notes_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = at(directory.path());
    let id = FileCache::open(options.clone()).unwrap().info().unwrap().id;
    let marker = options.directory.join("CACHE");
    let mut said: serde_json::Value = serde_json::from_slice(&std::fs::read(&marker).unwrap()).unwrap();
    assert!(said.as_object_mut().unwrap().remove("place").is_some());
    std::fs::write(&marker, said.to_string()).unwrap();
    drop(FileCache::open(Options { read_only: true, ..options.clone() }).unwrap());
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), said.to_string());
    assert_eq!(FileCache::open(options).unwrap().info().unwrap().id, id);
    assert!(std::fs::read_to_string(&marker).unwrap().contains("place"));
}

#[test]
fn the_first_call_after_an_outage_is_answered() {
    let mut server = TestServer::start();
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for on_outage in [OnOutage::Fail, OnOutage::Degrade] {
        let options = Options { on_outage, ..at(directory.path()).with_url(server.url()) };
        let cache = FileCache::open(options.clone()).unwrap();
        let tasks = runtime.block_on(aio::FileCache::open(options)).unwrap();
        cache.replace("k", b"content", &Put::default()).unwrap();
        for _ in 0..3 {
            server.kill();
            // With a growing pause, each failure would have made it longer.
            for _ in 0..6 {
                assert_eq!(cache.exists("k").unwrap_err().code(), Code::Unavailable);
                assert_eq!(runtime.block_on(tasks.exists("k")).unwrap_err().code(), Code::Unavailable);
            }
            server.restart_empty();
            assert!(cache.exists("k").unwrap());
            assert!(runtime.block_on(tasks.exists("k")).unwrap());
        }
    }
}

#[test]
fn connections_of_threads_that_ended_are_closed() {
    let server = TestServer::start();
    let directory = tempfile::tempdir().unwrap();
    let connections = || {
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.connection()).unwrap();
        list.lines().count() - 1
    };
    let options = at(directory.path()).with_url(server.url());
    for read_only in [false, true] {
        let cache = FileCache::open(Options { read_only, ..options.clone() }).unwrap();
        let together = std::sync::Barrier::new(20);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    together.wait();
                    for _ in 0..20 {
                        assert!(!cache.exists("k").unwrap());
                    }
                });
            }
        });
        wait_until("one connection is left", connections, |count| *count <= 2);
        assert!(!cache.exists("k").unwrap());
    }
}

#[test]
fn a_lease_whose_session_has_ended_is_not_shown() {
    let server = TestServer::start();
    for url in [None, Some(server.url())] {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { url, lease: Duration::from_millis(200), ..at(directory.path()) };
        let looking = FileCache::open(options.clone()).unwrap();
        looking.write("k", b"content", &Put::default()).unwrap();
        let cache = FileCache::open(options).unwrap();
        let (reader, writer) = (cache.open_read("k", NOW).unwrap(), cache.open_write("w", &Put::default()).unwrap());
        assert_eq!(looking.locks().unwrap().len(), 2);
        cache.stop_renewing();
        wait_until("no lease is shown", || looking.locks().unwrap(), Vec::is_empty);
        assert!(reader.lease_lost() && writer.lease_lost());
    }
}

#[test]
fn a_call_ends_at_its_deadline_while_the_server_evicts_the_index() {
    let server = TestServer::start();
    let directory = tempfile::tempdir().unwrap();
    let options = Options { command_timeout: Duration::from_secs(1), ..at(directory.path()).with_url(server.url()) };
    let cache = FileCache::open(options.clone()).unwrap();
    cache.write("k", b"content", &Put::default()).unwrap();
    let set = |name: &str, value: &str| {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).query::<()>(&mut server.connection()).unwrap();
    };
    set("maxmemory-policy", "allkeys-random");
    set("maxmemory", "1kb");
    assert_eq!(cache.warnings(), Vec::<String>::new(), "it was opened before");
    let put = Put::waiting(Duration::from_secs(1));
    let calls: [fn(&FileCache, &Put) -> crate::Result<()>; 4] = [
        |cache, put| cache.read("k", put.timeout).map(drop),
        |cache, put| cache.get_or_create("k", put, |_| Ok(())).map(drop),
        |cache, put| cache.write("new", b"", put).map(drop),
        |cache, _| cache.exists("k").map(drop),
    ];
    for (number, call) in calls.into_iter().enumerate() {
        let (answer, answered) = std::sync::mpsc::channel();
        let (called, put) = (cache.clone(), put.clone());
        // Not joined: without a deadline it would not end.
        std::thread::spawn(move || answer.send(call(&called, &put)));
        let error =
            answered.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("call {number} has not ended"));
        let text = error.unwrap_err().to_string();
        let is_named = text.contains("it was lost") && text.contains("allkeys-random") && text.contains("noeviction");
        assert!(is_named || text.contains("OOM"), "{text}");
    }
    set("maxmemory", "1gb");
    let warnings = FileCache::open(options).unwrap().warnings();
    assert!(matches!(&warnings[..], [warning] if warning.contains("allkeys-random")), "{warnings:?}");
    assert_eq!(cache.read("k", NOW).unwrap(), b"content");
}
