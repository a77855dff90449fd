//! Damaged or missing parts are reported, and repaired where possible.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::server::TestServer;
use crate::{Code, Depth, FileCache, Finding, Level, Limits, Options, Put, aio};

const NOW: Duration = Duration::ZERO;

fn at(directory: &tempfile::TempDir) -> Options {
    Options { maintenance: None, ..Options::new(directory.path().join("cache")) }
}

fn read_only(options: &Options) -> Options {
    Options { read_only: true, ..options.clone() }
}

/// A cache with two entries and a pinned one, without a server, and its journal.
fn with_journal() -> (tempfile::TempDir, Options, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let options = at(&directory);
    let cache = FileCache::open(options.clone()).unwrap();
    for key in ["a", "b"] {
        cache.write(key, key.as_bytes(), &Put::default()).unwrap();
    }
    cache.write("pinned", b"pinned", &Put::default()).unwrap();
    assert!(cache.pin("pinned", true).unwrap());
    let journal = options.directory.join("JOURNAL");
    (directory, options, journal)
}

fn assert_whole(cache: &FileCache) {
    for key in ["a", "b", "pinned"] {
        assert_eq!(cache.read(key, NOW).unwrap(), key.as_bytes());
    }
    assert_eq!(cache.verify(Depth::Digests, &mut |_, _| true).unwrap().problems, []);
}

fn errors(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|finding| finding.level == Level::Error).map(|finding| finding.name).collect()
}

fn said<'a>(findings: &'a [Finding], name: &str) -> &'a str {
    &findings.iter().find(|finding| finding.name == name).unwrap_or_else(|| panic!("{name}: {findings:?}")).message
}

/// Where the records of a journal begin.
fn records(journal: &[u8]) -> Vec<usize> {
    let mut starts = vec![8];
    while let Some(length) = journal[starts[starts.len() - 1]..].first_chunk::<4>() {
        starts.push(starts[starts.len() - 1] + 8 + u32::from_le_bytes(*length) as usize);
    }
    starts
}

#[test]
fn a_journal_that_is_garbage_is_rebuilt_from_the_directory() {
    let damages: [fn(&Path); 5] = [
        |path| std::fs::write(path, "garbage\n").unwrap(),
        |path| std::fs::write(path, vec![b'x'; 10_000]).unwrap(),
        |path| std::fs::write(path, "").unwrap(),
        |path| std::fs::write(path, b"rgcache1\x05\0\0\0wrong sum").unwrap(),
        |path| std::fs::remove_file(path).unwrap(),
    ];
    for damage in damages {
        let (_directory, options, journal) = with_journal();
        damage(&journal);
        let before = std::fs::read(&journal).ok();
        let looking = FileCache::open(read_only(&options)).unwrap();
        assert_whole(&looking);
        assert_eq!(looking.info().unwrap().entries, 3);
        assert_eq!(std::fs::read(&journal).ok(), before);
        let cache = FileCache::open(options).unwrap();
        assert_whole(&cache);
        cache.write("c", b"c", &Put::default()).unwrap();
        assert_eq!(looking.read("c", NOW).unwrap(), b"c");
        assert_whole(&looking);
    }
}

#[test]
fn a_cache_that_is_open_survives_that_its_journal_becomes_garbage() {
    let (_directory, options, journal) = with_journal();
    let cache = FileCache::open(options.clone()).unwrap();
    let looking = FileCache::open(read_only(&options)).unwrap();
    std::fs::write(&journal, "garbage\n").unwrap();
    assert_whole(&looking);
    assert_whole(&cache);
    std::fs::remove_file(&journal).unwrap();
    assert_whole(&looking);
    assert_whole(&cache);
    cache.write("c", b"c", &Put::default()).unwrap();
    assert_eq!(looking.read("c", NOW).unwrap(), b"c");
}

#[test]
fn damage_within_a_journal_loses_nothing_that_is_in_the_directory() {
    let (_directory, options, journal) = with_journal();
    let sound = std::fs::read(&journal).unwrap();
    for start in records(&sound) {
        let mut damaged = sound.clone();
        if start < sound.len() {
            damaged[start + 8] ^= 1;
        } else {
            // What a power failure may leave.
            damaged.extend([0; 100]);
        }
        std::fs::write(&journal, damaged).unwrap();
        assert_whole(&FileCache::open(read_only(&options)).unwrap());
        let cache = FileCache::open(options.clone()).unwrap();
        assert_whole(&cache);
        cache.maintain().unwrap();
        assert_whole(&cache);
        assert_whole(&FileCache::open(options.clone()).unwrap());
        let pinned = cache.stat("pinned").unwrap().unwrap().pinned;
        assert!(pinned || start < sound.len(), "what was replayed counts");
    }
}

#[test]
fn a_torn_tail_is_dropped_and_the_index_not_rebuilt() {
    let (_directory, options, journal) = with_journal();
    let sound = std::fs::read(&journal).unwrap();
    let torn = &sound[..sound.len() - 1];
    std::fs::write(&journal, torn).unwrap();
    let cache = FileCache::open(options).unwrap();
    assert_whole(&cache);
    assert_eq!(cache.stats().rebuilds, 0);
    assert!(std::fs::metadata(&journal).unwrap().len() < torn.len() as u64 + 1000);
}

#[test]
fn a_journal_of_another_version_is_left_alone_and_the_fix_is_named() {
    let (_directory, options, journal) = with_journal();
    std::fs::write(&journal, b"rgcache2 and so on").unwrap();
    for options in [options.clone(), read_only(&options)] {
        let error = FileCache::open(options).unwrap_err();
        assert!(error.to_string().contains("delete the file"), "{error}");
    }
    assert_eq!(std::fs::read(&journal).unwrap(), b"rgcache2 and so on");
    std::fs::remove_file(&journal).unwrap();
    assert_whole(&FileCache::open(options).unwrap());
}

#[test]
fn a_damaged_marker_is_reported_once_with_a_fix_that_works() {
    let server = TestServer::start();
    for url in [None, Some(server.url())] {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { url, ..at(&directory) };
        let cache = FileCache::open(options.clone()).unwrap();
        cache.write("k", b"value", &Put::default()).unwrap();
        drop(cache);
        let marker = options.directory.join("CACHE");
        let sound = std::fs::read_to_string(&marker).unwrap();
        let id = sound.split('"').nth(5).unwrap();
        for damage in ["not json", &sound.replace(id, "no number")] {
            std::fs::write(&marker, damage).unwrap();
            let error = FileCache::open(options.clone()).unwrap_err();
            let text = error.to_string();
            assert_eq!(text.matches("is damaged").count(), 1, "{text}");
            assert!(text.contains("cache: the file CACHE") && text.contains("adopt"), "{text}");
            assert!(std::error::Error::source(&error).is_none(), "its text would be told twice");
            let findings = FileCache::doctor_unopened(&options, &error);
            assert_eq!(errors(&findings), ["index", "marker", "limits"], "{findings:?}");
            assert!(said(&findings, "marker").contains("adopt") && said(&findings, "disk").contains("free"));
        }
        std::fs::rename(&marker, directory.path().join("away")).unwrap();
        let limits = Limits::max_bytes(1_000_000);
        let cache = FileCache::open(Options { adopt: true, limits: Some(limits), ..options.clone() }).unwrap();
        assert_eq!((cache.read("k", NOW).unwrap(), cache.info().unwrap().limits), (b"value".to_vec(), limits));
        assert_eq!(cache.verify(Depth::Digests, &mut |_, _| true).unwrap().problems, []);
        drop(cache);
        assert_eq!(FileCache::open(options).unwrap().read("k", NOW).unwrap(), b"value");
    }
}

#[test]
fn the_doctor_examines_what_is_there_when_the_server_is_away() {
    let mut server = TestServer::start();
    let directory = tempfile::tempdir().unwrap();
    let options = Options { limits: Some(Limits::max_bytes(12_345)), ..at(&directory) }.with_url(server.url());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let cache = FileCache::open(options.clone()).unwrap();
    let tasks = runtime.block_on(aio::FileCache::open(options.clone())).unwrap();
    assert_eq!(errors(&cache.doctor().unwrap()), [""; 0]);
    server.kill();
    assert_eq!(cache.exists("k").unwrap_err().operation(), "exists");
    assert_eq!(runtime.block_on(tasks.exists("k")).unwrap_err().operation(), "exists");
    let failure = FileCache::open(options.clone()).unwrap_err();
    assert_eq!(failure.code(), Code::Unavailable);
    for findings in [
        cache.doctor().unwrap(),
        runtime.block_on(tasks.doctor()).unwrap(),
        FileCache::doctor_unopened(&options, &failure),
    ] {
        assert_eq!(errors(&findings), ["index", "server"], "{findings:?}");
        assert!(said(&findings, "index").contains(&options.server().unwrap()), "{findings:?}");
        assert!(said(&findings, "server").contains("start the server"), "{findings:?}");
        assert_eq!(said(&findings, "limits"), "max_bytes 12345");
        assert!(said(&findings, "disk").ends_with("bytes free"));
    }
}

#[test]
fn the_doctor_finds_a_directory_that_is_gone_or_not_to_be_written_to() {
    let directory = tempfile::tempdir().unwrap();
    let options = at(&directory);
    let cache = FileCache::open(options.clone()).unwrap();
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(&options.directory, PermissionsExt::from_mode(0o500)).unwrap();
        assert_eq!(errors(&cache.doctor().unwrap()), ["directory"]);
        std::fs::set_permissions(&options.directory, PermissionsExt::from_mode(0o700)).unwrap();
    }
    std::fs::remove_dir_all(&options.directory).unwrap();
    let findings = cache.doctor().unwrap();
    assert!(said(&findings, "directory").contains("does not exist"), "{findings:?}");
    assert_eq!(errors(&findings), ["index", "marker", "limits", "directory"], "{findings:?}");
    let failure = FileCache::open(read_only(&options)).unwrap_err();
    assert_eq!(errors(&FileCache::doctor_unopened(&options, &failure)), ["index", "directory"]);
}

#[test]
fn problems_name_keys_without_quotes() {
    let directory = tempfile::tempdir().unwrap();
    let cache = FileCache::open(at(&directory)).unwrap();
    for key in [&b"c"[..], b"a\"b", b"\xffk"] {
        cache.write(key, b"value", &Put::default()).unwrap();
        std::fs::remove_file(cache.open_read(key, NOW).unwrap().path()).unwrap();
    }
    let mut names: Vec<_> = cache
        .verify(Depth::Sizes, &mut |_, _| true)
        .unwrap()
        .problems
        .into_iter()
        .map(|problem| problem.name)
        .collect();
    names.sort();
    assert_eq!(names, ["\\xffk", "a\"b", "c"]);
}
