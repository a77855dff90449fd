//! The blocking and the async API behave the same, with a server and without.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use super::server::TestServer;
use crate::{Code, Depth, Evict, FileCache, Limits, MAX_KEY_BYTES, Options, Outcome, ProblemKind, Put, aio};

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(20);

/// Runs a test with a server and without.
fn both(test: impl Fn(Options, Option<&mut TestServer>)) {
    let directory = tempfile::tempdir().unwrap();
    test(Options::new(directory.path().join("alone")), None);
    let mut server = TestServer::start();
    let options = Options::new(directory.path().join("with")).with_url(server.url());
    test(options, Some(&mut server));
}

/// Runs an async test with a server and without. Tests are spawned, which requires futures that are `Send`.
fn both_for_tasks<F: Future<Output = ()> + Send + 'static>(test: impl Fn(Options) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    both(|options, _| runtime.block_on(runtime.spawn(test(options))).unwrap());
}

fn verified(cache: &FileCache) {
    let found = cache.verify(Depth::Digests, &mut |_, _| true).unwrap();
    assert_eq!(found.problems, []);
}

#[test]
fn content_is_created_once_read_replaced_and_deleted() {
    both(|options, _| {
        let cache = FileCache::open(options).unwrap();
        assert_eq!(cache.read("k", NOW).unwrap_err().code(), Code::Missing);
        let stat = cache.write("k", b"value", &Put::default()).unwrap();
        assert_eq!((stat.size, stat.digest), (5, crate::edge::digest(b"value")));
        assert_eq!(cache.read("k", NOW).unwrap(), b"value");
        assert_eq!(cache.write("k", b"other", &Put::default()).unwrap_err().code(), Code::Exists);
        let mut old = cache.open_read("k", NOW).unwrap();
        let newer = cache.replace("k", b"new", &Put::default()).unwrap();
        assert!(newer.fence > stat.fence);
        let mut content = Vec::new();
        assert!(old.path().exists());
        old.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"value");
        drop(old);
        let (handle, outcome) = cache.get_or_create("k", &Put::default(), |_| unreachable!()).unwrap();
        assert_eq!((handle.into_bytes().unwrap(), outcome), (b"new".to_vec(), Outcome::Hit));
        assert!(cache.delete("k").unwrap());
        assert!(!cache.delete("k").unwrap());
        assert_eq!(cache.read("k", NOW).unwrap_err().code(), Code::Missing);
        cache.maintain().unwrap();
        verified(&cache);
        let info = cache.info().unwrap();
        assert_eq!((info.entries, info.bytes, info.garbage_bytes, info.writers, info.readers), (0, 0, 0, 0, 0));
    });
}

#[test]
fn a_hit_takes_one_round_trip_and_a_create_two() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start();
    for limits in [None, Some(Limits::max_bytes(10_000))] {
        let name = if limits.is_some() { "limited" } else { "unlimited" };
        let mut options = Options::new(directory.path().join(name)).with_url(server.url()).with_namespace(name);
        options.limits = limits;
        options.maintenance = None;
        let cache = FileCache::open(options).unwrap();
        let spent = |what: &str, most: u64, job: &dyn Fn(u32)| {
            job(0);
            cache.reset_stats();
            let began = std::time::Instant::now();
            (1..=50).for_each(job);
            let spent = cache.stats().round_trips;
            // In the background a thread connects, renews the session and releases leases, all within 10 ms.
            let background = 6 + began.elapsed().as_millis() as u64 / 10;
            assert!(spent <= 50 * most + background, "{spent} round trips for 50 times {what}, {name}");
        };
        let content = [7; 1000];
        spent("write", 2, &|n| drop(cache.write(format!("w{n}"), &content, &Put::default()).unwrap()));
        spent("read", 1, &|_| drop(cache.read("w50", NOW).unwrap()));
        spent("replace", 2, &|_| drop(cache.replace("w50", &content, &Put::default()).unwrap()));
        let make = |n: u32| cache.get_or_create(format!("g{n}"), &Put::default(), |file| Ok(file.write_all(&content)?));
        spent("get_or_create that creates", 2, &|n| assert_eq!(make(n).unwrap().1, Outcome::Created));
        spent("get_or_create that hits", 1, &|_| assert_eq!(make(50).unwrap().1, Outcome::Hit));
        verified(&cache);
    }
}

#[test]
fn hostile_keys_are_keys_like_others_or_are_refused() {
    both(|options, _| {
        let root = options.directory.clone();
        let cache = FileCache::open(options).unwrap();
        let long = vec![b'x'; MAX_KEY_BYTES];
        let almost = [&long[..MAX_KEY_BYTES - 1], b"y"].concat();
        let keys: Vec<&[u8]> = vec![
            b".",
            b"..",
            b"../../etc/passwd",
            b"a/../b",
            b"/absolute",
            b"back\\slash",
            b"nul\0",
            b"new\nline",
            b".hidden",
            b"CON",
            b"dot.",
            b" ",
            b"\xff\xfe",
            "Ā".as_bytes(),
            "e\u{301}".as_bytes(),
            "é".as_bytes(),
            b"A",
            b"a",
            b"a~b",
            b"100%",
            b"=x",
            b"*",
            &long,
            &almost,
            &[b'/'; 300],
        ];
        for (number, key) in keys.iter().enumerate() {
            cache.write(key, &[number as u8; 3], &Put::default()).unwrap();
        }
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(cache.read(key, NOW).unwrap(), [number as u8; 3], "{key:?}");
        }
        for key in [&b""[..], &[b'x'; MAX_KEY_BYTES + 1], &[b'x'; 10_000]] {
            let error = cache.write(key, b"", &Put::default()).unwrap_err();
            assert_eq!(error.code(), Code::BadKey);
            assert!(error.to_string().contains("1 to 4096 bytes") && error.to_string().len() < 250, "{error}");
            assert_eq!(cache.read(key, NOW).unwrap_err().code(), Code::BadKey);
        }
        let outside: Vec<_> =
            std::fs::read_dir(root.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(outside.len() <= 2, "{outside:?}");
        verified(&cache);
    });
}

#[test]
fn an_index_that_was_lost_is_rebuilt_from_the_directory() {
    both(|mut options, server| {
        let Some(server) = server else { return };
        options.lease = Duration::from_millis(500);
        let cache = FileCache::open(options).unwrap();
        let long = vec![b'k'; 1000];
        let put =
            Put { content_type: Some("text/plain".to_owned()), ..Put::default().with_ttl(Duration::from_secs(1000)) };
        for number in 0..100 {
            cache.write(format!("k{number}"), format!("v{number}").as_bytes(), &Put::default()).unwrap();
        }
        cache.write(&long, b"long", &put).unwrap();
        cache.replace("k0", b"newer", &Put::default()).unwrap();
        cache.delete("k1").unwrap();
        let before = cache.stat(&long).unwrap().unwrap();
        cache.configure(&Limits::max_bytes(1_000_000)).unwrap();
        server.restart_empty();
        // After a failed attempt the server is not tried again for a moment.
        let deadline = std::time::Instant::now() + SOON;
        let read = loop {
            match cache.read("k0", NOW) {
                Err(error) if error.code() == Code::Unavailable && std::time::Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                read => break read,
            }
        };
        assert_eq!(read.unwrap(), b"newer");
        assert_eq!(cache.read("k1", NOW).unwrap_err().code(), Code::Missing);
        assert_eq!(cache.write("k7", b"again", &Put::default()).unwrap_err().code(), Code::Exists);
        let after = cache.stat(&long).unwrap().unwrap();
        assert_eq!(
            (after.fence, after.size, after.digest, &after.content_type),
            (before.fence, before.size, before.digest, &before.content_type)
        );
        assert!(after.expires.is_some());
        assert_eq!((cache.info().unwrap().entries, cache.stats().rebuilds), (100, 1));
        assert_eq!(cache.info().unwrap().limits, Limits::max_bytes(1_000_000));
        verified(&cache);
    });
}

#[test]
fn entries_expire() {
    both(|mut options, _| {
        options.limits = Some(Limits { max_idle: Duration::from_secs(3600), ..Limits::default() });
        let cache = FileCache::open(options).unwrap();
        cache.write("short", b"x", &Put::default().with_ttl(Duration::from_millis(30))).unwrap();
        cache.write("long", b"y", &Put::default().with_ttl(Duration::from_secs(3600))).unwrap();
        let deadline = std::time::Instant::now() + SOON;
        while cache.exists("short").unwrap() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(cache.read("short", NOW).unwrap_err().code(), Code::Missing);
        assert_eq!(cache.read("long", NOW).unwrap(), b"y");
        cache.write("short", b"again", &Put::default()).unwrap();
        assert!(cache.touch("long", Some(Duration::from_millis(1))).unwrap());
        while cache.exists("long").unwrap() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(!cache.touch("long", None).unwrap());
        verified(&cache);
    });
}

#[test]
fn the_least_recently_used_goes_first_and_what_is_pinned_or_read_stays() {
    both(|mut options, _| {
        options.limits = Some(Limits { low_mark: 1.0, ..Limits::max_bytes(5_000) });
        let cache = FileCache::open(options).unwrap();
        for key in ["a", "b", "c", "d", "e"] {
            cache.write(key, &[0; 1000], &Put::default()).unwrap();
        }
        cache.read("a", NOW).unwrap();
        assert!(cache.pin("b", true).unwrap());
        let reading = cache.open_read("c", NOW).unwrap();
        cache.read("a", NOW).unwrap();
        cache.write("f", &[0; 1000], &Put::default()).unwrap();
        cache.write("g", &[0; 1000], &Put::default()).unwrap();
        let there: Vec<_> =
            ["a", "b", "c", "d", "e", "f", "g"].into_iter().filter(|key| cache.exists(key).unwrap()).collect();
        assert_eq!(there, ["a", "b", "c", "f", "g"]);
        assert!(reading.path().exists());
        assert_eq!(cache.write("huge", &[0; 5001], &Put::default()).unwrap_err().code(), Code::TooLarge);
        let mut writer = cache.open_write("huge", &Put::default()).unwrap();
        let written = (0..100).try_for_each(|_| writer.write_all(&[0; 1000]));
        assert!(written.unwrap_err().to_string().contains("larger than 5000 bytes"));
        let error = writer.commit().unwrap_err();
        assert!(error.to_string().contains("nothing was published"), "{error}");
        assert!(!cache.exists("huge").unwrap());
        verified(&cache);
    });
}

#[test]
fn a_directory_and_an_index_that_do_not_belong_together_are_refused() {
    both(|options, server| {
        drop(FileCache::open(options.clone()).unwrap());
        let refused = |options: Options, words: &str| {
            let error = FileCache::open(options).unwrap_err();
            assert_eq!(error.code(), Code::BadConfig);
            assert!(error.to_string().contains(words) && error.to_string().contains("adopt"), "{error}");
        };
        refused(options.clone().with_namespace("another"), "belongs to namespace redgrease-cache");
        if server.is_some() {
            let elsewhere = options.directory.with_file_name("elsewhere");
            refused(Options { directory: elsewhere.clone(), ..options.clone() }, "belongs to cache");
            let cache = FileCache::open(Options { directory: elsewhere, adopt: true, ..options.clone() }).unwrap();
            cache.write("k", b"v", &Put::default()).unwrap();
            refused(options.clone(), "belongs to cache");
            let other = TestServer::start();
            refused(Options { url: Some(other.url()), ..options }, "knows nothing of it");
        }
    });
}

#[test]
fn many_may_open_a_new_cache_at_the_same_moment() {
    both(|options, _| {
        for round in 0..20 {
            let directory = options.directory.with_file_name(format!("new-{round}-{}", options.url.is_some()));
            let options = Options { directory, ..options.clone() }.with_namespace(format!("n{round}"));
            let ids: Vec<u64> = std::thread::scope(|scope| {
                let open = || FileCache::open(options.clone()).unwrap().info().unwrap().id;
                let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        }
    });
}

#[test]
fn a_flat_directory_of_files_is_taken_in_only_when_that_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("old.bin"), b"old").unwrap();
    std::fs::write(directory.path().join(".old.bin.abc123"), b"torn").unwrap();
    let error = FileCache::open(Options::new(directory.path())).unwrap_err();
    assert!(error.code() == Code::BadConfig && error.to_string().contains("adopt"), "{error}");
    let cache = FileCache::open(Options { adopt: true, ..Options::new(directory.path()) }).unwrap();
    assert_eq!(cache.read("old.bin", NOW).unwrap(), b"old");
    assert!(!directory.path().join("old.bin").exists());
    verified(&cache);
}

#[test]
fn damaged_files_are_found_moved_to_quarantine_and_made_again() {
    both(|options, _| {
        let root = options.directory.clone();
        let cache = FileCache::open(options).unwrap();
        let damage = |key: &str, how: &dyn Fn(&Path)| {
            cache.replace(key, b"content", &Put::default()).unwrap();
            let path = cache.open_read(key, NOW).unwrap().path();
            how(&path);
        };
        damage("flipped", &|path| std::fs::write(path, b"cOntent").unwrap());
        damage("short", &|path| std::fs::write(path, b"con").unwrap());
        damage("link", &|path| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        });
        damage("fifo", &|path| {
            std::fs::remove_file(path).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        });
        for key in ["flipped", "short", "link", "fifo"] {
            assert_eq!(cache.read(key, NOW).unwrap_err().code(), Code::Corrupt, "{key}");
            assert_eq!(cache.read(key, NOW).unwrap_err().code(), Code::Missing, "{key}");
        }
        damage("gone", &|path| std::fs::remove_file(path).unwrap());
        assert_eq!(cache.read("gone", NOW).unwrap_err().code(), Code::Missing);
        cache.write("gone", b"again", &Put::default()).unwrap();
        assert_eq!(std::fs::read_dir(root.join("quarantine")).unwrap().count(), 4);
        cache.maintain().unwrap();
        verified(&cache);
    });
}

#[test]
fn directories_that_a_cleaner_took_are_made_again() {
    both(|options, _| {
        let root = options.directory.clone();
        let cache = FileCache::open(options).unwrap();
        for name in ["temporary", "files"] {
            std::fs::remove_dir_all(root.join(name)).unwrap();
            cache.write(name, b"content", &Put::default()).unwrap();
        }
        assert_eq!(cache.read("files", NOW).unwrap(), b"content");
        assert_eq!(cache.read("temporary", NOW).unwrap_err().code(), Code::Missing);
        verified(&cache);
        std::fs::remove_dir_all(&root).unwrap();
        let error = cache.write("k", b"content", &Put::default()).unwrap_err();
        assert!(["was removed", "No such file"].iter().any(|words| error.to_string().contains(words)), "{error}");
        assert_ne!(error.code(), Code::LeaseLost);
        for error in [cache.read("files", NOW).unwrap_err(), cache.open_read("files", NOW).map(|_| ()).unwrap_err()] {
            assert_ne!(error.code(), Code::Missing, "{error}");
            assert!(["was removed", "No such file"].iter().any(|words| error.to_string().contains(words)), "{error}");
        }
    });
}

#[test]
fn a_writer_that_fails_leaves_nothing() {
    both(|options, _| {
        let root = options.directory.clone();
        let cache = FileCache::open(options).unwrap();
        let error = cache.get_or_create("k", &Put::default(), |file| {
            file.write_all(&[0; 200_000])?;
            Err("no luck".into())
        });
        let error = error.err().unwrap();
        assert_eq!(error.code(), Code::Producer);
        assert_eq!(error.into_producer_error().unwrap().to_string(), "no luck");
        drop(cache.open_write("k", &Put::default()).unwrap());
        assert_eq!(cache.read("k", NOW).unwrap_err().code(), Code::Missing);
        let mut writer = cache.open_write("k", &Put::default()).unwrap();
        assert_eq!(cache.write("k", b"x", &Put::default()).unwrap_err().code(), Code::Busy);
        // A caller does not wait for itself; others wait until their deadline.
        let error = cache.write("k", b"x", &Put::waiting(SOON)).unwrap_err();
        assert!(error.code() == Code::Busy && error.to_string().contains("the same thread"), "{error}");
        let short = Put::waiting(Duration::from_millis(20));
        let error = std::thread::scope(|scope| scope.spawn(|| cache.write("k", b"x", &short)).join().unwrap());
        assert_eq!(error.unwrap_err().code(), Code::Timeout);
        let path = writer.path().unwrap();
        let other = path.with_extension("other");
        std::fs::write(&other, b"written by somebody else").unwrap();
        std::fs::rename(other, &path).unwrap();
        writer.commit().unwrap();
        assert_eq!(cache.read("k", NOW).unwrap(), b"written by somebody else");
        assert_eq!(std::fs::read_dir(root.join("temporary")).unwrap().count(), 0);
        verified(&cache);
    });
}

#[test]
fn one_of_many_threads_produces_and_the_others_wait() {
    both(|options, _| {
        // Two sessions, as two processes would have.
        let caches = [FileCache::open(options.clone()).unwrap(), FileCache::open(options).unwrap()];
        let produced = std::sync::atomic::AtomicU32::new(0);
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|number| {
                    let (cache, produced) = (&caches[number % 2], &produced);
                    scope.spawn(move || {
                        let (handle, outcome) = cache
                            .get_or_create("k", &Put::waiting(SOON), |file| {
                                produced.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                std::thread::sleep(Duration::from_millis(100));
                                Ok(file.write_all(b"once")?)
                            })
                            .unwrap();
                        assert_eq!(handle.into_bytes().unwrap(), b"once");
                        outcome
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(produced.into_inner(), 1);
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Created).count(), 1);
        verified(&caches[0]);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_do_as_threads_do() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::start();
    let alone = Options::new(directory.path().join("alone"));
    let with = Options::new(directory.path().join("with")).with_url(server.url());
    for options in [alone, with] {
        let cache = aio::FileCache::open(options.clone()).await.unwrap();
        assert_eq!(cache.read("k", NOW).await.unwrap_err().code(), Code::Missing);
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    let produce = async |mut writer: aio::Writer| -> Result<aio::Writer, crate::BoxError> {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        writer.write(&[5; 100_000]).await?;
                        Ok(writer)
                    };
                    let put = Put::waiting(SOON);
                    let (handle, outcome) = cache.get_or_create("k", &put, produce).await.unwrap();
                    assert_eq!(handle.into_bytes().unwrap(), [5; 100_000]);
                    outcome
                })
            })
            .collect();
        let mut created = 0;
        for task in tasks {
            created += u32::from(task.await.unwrap() == Outcome::Created);
        }
        assert_eq!(created, 1);
        assert_eq!(cache.write("k", b"x".to_vec(), &Put::default()).await.unwrap_err().code(), Code::Exists);
        // A task that is cancelled while it makes content releases the key.
        let writer = cache.open_write("cancelled", &Put::default()).await.unwrap();
        let waiting = tokio::spawn({
            let cache = cache.clone();
            async move { cache.write("cancelled", b"second".to_vec(), &Put::waiting(SOON)).await }
        });
        drop(writer);
        waiting.await.unwrap().unwrap();
        assert_eq!(cache.read("cancelled", NOW).await.unwrap(), b"second");
        cache.close().await;
        verified(&FileCache::open(options).unwrap());
    }
}

#[test]
fn a_task_breaks_a_lock_and_its_holder_publishes_nothing() {
    both_for_tasks(async |options: Options| {
        // Two sessions, as two processes would have.
        let cache = aio::FileCache::open(options.clone()).await.unwrap();
        let holder = aio::FileCache::open(options).await.unwrap();
        assert!(!cache.break_lock("k").await.unwrap());
        assert_eq!(cache.break_lock("").await.unwrap_err().code(), Code::BadKey);
        let mut writer = holder.open_write("k", &Put::default()).await.unwrap();
        writer.write(b"mine").await.unwrap();
        assert_eq!(cache.write("k", b"yours".to_vec(), &Put::default()).await.unwrap_err().code(), Code::Busy);
        assert!(cache.break_lock("k").await.unwrap());
        assert_eq!(cache.locks().await.unwrap(), []);
        cache.write("k", b"yours".to_vec(), &Put::default()).await.unwrap();
        assert_eq!(writer.commit().await.unwrap_err().code(), Code::LeaseLost);
        assert_eq!(cache.read("k", NOW).await.unwrap(), b"yours");
        holder.close().await;
        cache.close().await;
    });
}

#[test]
fn a_task_changes_the_limits_for_all_and_they_are_remembered() {
    both_for_tasks(async |options: Options| {
        let cache = aio::FileCache::open(options.clone()).await.unwrap();
        let other = aio::FileCache::open(options.clone()).await.unwrap();
        let limits = Limits { max_entry_bytes: 10, max_idle: Duration::from_secs(60), ..Limits::max_bytes(1000) };
        cache.configure(&limits).await.unwrap();
        assert_eq!(other.info().await.unwrap().limits, limits);
        let refused = other.write("k", vec![0; 11], &Put::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::TooLarge);
        for (wrong, named) in [
            (Limits { low_mark: 1.5, ..limits }, "low_mark of 1.5"),
            (Limits { max_entries: u64::MAX, ..limits }, "max_entries of 18446744073709551615"),
        ] {
            let error = cache.configure(&wrong).await.unwrap_err();
            assert!(error.code() == Code::BadConfig && error.to_string().contains(named), "{error}");
        }
        cache.close().await;
        other.close().await;
        let marker = std::fs::read_to_string(options.directory.join(crate::disk::MARKER)).unwrap();
        assert!(marker.contains("\"max_entry_bytes\": 10"), "{marker}");
        assert_eq!(FileCache::open(options).unwrap().info().unwrap().limits, limits);
    });
}

#[test]
fn tasks_verify_and_repair_and_are_told_how_far_it_is() {
    both_for_tasks(async |options: Options| {
        let cache = aio::FileCache::open(options.clone()).await.unwrap();
        for key in ["good", "flipped", "gone"] {
            cache.write(key, key.as_bytes().to_vec(), &Put::default()).await.unwrap();
        }
        let path = async |key: &str| cache.open_read(key, NOW).await.unwrap().path();
        std::fs::write(path("flipped").await, b"fLipped").unwrap();
        std::fs::remove_file(path("gone").await).unwrap();
        let kinds = |found: &crate::Verification| {
            let mut kinds: Vec<_> =
                found.problems.iter().map(|problem| (problem.kind.as_str(), problem.repaired)).collect();
            kinds.sort_unstable();
            kinds
        };
        let (digest, missing) = (ProblemKind::DigestMismatch.as_str(), ProblemKind::MissingFile.as_str());
        let mut told = Vec::new();
        let mut progress = |done, total| {
            told.push((done, total));
            true
        };
        let found = cache.verify(Depth::Digests, &mut progress).await.unwrap();
        assert_eq!((found.entries, kinds(&found)), (3, vec![(digest, false), (missing, false)]));
        assert_eq!(told, [(0, 3), (1, 3), (2, 3), (3, 3)]);
        let mut looked = 0;
        let stop = &mut |done, _| {
            looked = done;
            false
        };
        let begun = cache.verify(Depth::Digests, stop).await.unwrap();
        assert_eq!((looked, begun.files, kinds(&begun)), (0, 0, vec![]));
        let repaired = cache.repair(Depth::Digests, &mut |_, _| true).await.unwrap();
        assert_eq!(kinds(&repaired), [(digest, true), (missing, true)]);
        let found = cache.verify(Depth::Digests, &mut |_, _| true).await.unwrap();
        assert_eq!((found.entries, found.problems), (1, vec![]));
        assert_eq!(cache.read("good", NOW).await.unwrap(), b"good");
        assert_eq!(std::fs::read_dir(options.directory.join("quarantine")).unwrap().count(), 1);
        cache.close().await;
    });
}

#[test]
fn the_doctor_finds_the_same_for_tasks_and_for_threads() {
    both_for_tasks(async |mut options: Options| {
        drop(FileCache::open(options.clone()).unwrap());
        options.limits = Some(Limits::max_bytes(7));
        let tasks = aio::FileCache::open(options.clone()).await.unwrap();
        let found = |findings: Vec<crate::Finding>| -> Vec<_> {
            findings.into_iter().map(|finding| (finding.level, finding.name)).collect()
        };
        let seen = found(tasks.doctor().await.unwrap());
        assert!(seen.contains(&(crate::Level::Warning, "limits")), "{seen:?}");
        assert_eq!(seen.contains(&(crate::Level::Ok, "maxmemory")), options.url.is_some(), "{seen:?}");
        tasks.close().await;
        assert_eq!(seen, found(FileCache::open(options).unwrap().doctor().unwrap()));
    });
}

#[test]
fn a_task_counts_from_zero() {
    both_for_tasks(async |options: Options| {
        let with_server = options.url.is_some();
        let cache = aio::FileCache::open(Options { maintenance: None, ..options }).await.unwrap();
        for number in 0..100 {
            cache.write(format!("k{number}"), b"v".to_vec(), &Put::default()).await.unwrap();
        }
        cache.read("k0", NOW).await.unwrap();
        let before = cache.stats();
        assert_eq!((before.creates, before.hits, before.round_trips >= 200), (100, 1, with_server));
        cache.reset_stats();
        let after = cache.stats();
        // Background work continues.
        assert!((after.creates, after.hits) == (0, 0) && after.round_trips < 20, "{after:?}");
        cache.close().await;
    });
}

#[test]
fn a_task_with_a_read_only_cache_looks_and_changes_nothing() {
    both_for_tasks(async |options: Options| {
        FileCache::open(options.clone()).unwrap().write("k", b"kept", &Put::default()).unwrap();
        let cache = aio::FileCache::open(Options { read_only: true, ..options.clone() }).await.unwrap();
        let everything = Evict { older_than: Some(NOW), ..Evict::default() };
        let refused = [
            cache.break_lock("k").await.err(),
            cache.configure(&Limits::max_bytes(1)).await.err(),
            cache.repair(Depth::Sizes, &mut |_, _| true).await.err(),
            cache.evict(&everything).await.err(),
            cache.clear().await.err(),
            cache.maintain().await.err(),
            cache.delete("k").await.err(),
            cache.begin("new", &Put::default()).await.err(),
        ];
        for error in refused {
            let error = error.unwrap();
            assert!(error.code() == Code::Denied && error.to_string().contains("read-only"), "{error}");
        }
        let dry = cache.evict(&Evict { dry_run: true, ..everything }).await.unwrap();
        assert_eq!(dry.keys, [b"k".to_vec()]);
        assert_eq!(cache.verify(Depth::Digests, &mut |_, _| true).await.unwrap().problems, []);
        cache.doctor().await.unwrap();
        let found = cache.get_or_create("k", &Put::default(), async |_| unreachable!()).await.unwrap();
        assert_eq!((found.0.into_bytes().unwrap(), found.1), (b"kept".to_vec(), Outcome::Hit));
        verified(&FileCache::open(options).unwrap());
    });
}

#[test]
fn a_task_publishes_what_others_wrote_under_the_path_of_its_writer() {
    both_for_tasks(async |options: Options| {
        let cache = aio::FileCache::open(options.clone()).await.unwrap();
        let mut writer = cache.open_write("k", &Put::default()).await.unwrap();
        writer.write(b"begun, ").await.unwrap();
        let path = writer.path().await.unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"gone on, ").unwrap();
        writer.write(b"ended").await.unwrap();
        let stat = writer.commit().await.unwrap();
        assert_eq!((stat.size, stat.digest), (21, crate::edge::digest(b"begun, gone on, ended")));
        assert_eq!(cache.read("k", NOW).await.unwrap(), b"begun, gone on, ended");
        let mut writer = cache.open_replace("k", &Put::default()).await.unwrap();
        let path = writer.path().await.unwrap();
        let other = path.with_extension("other");
        std::fs::write(&other, b"written by somebody else").unwrap();
        std::fs::rename(other, &path).unwrap();
        let handle = writer.commit_and_open().await.unwrap();
        assert_eq!(handle.into_bytes().unwrap(), b"written by somebody else");
        let mut writer = cache.open_replace("k", &Put::default()).await.unwrap();
        std::fs::remove_file(writer.path().await.unwrap()).unwrap();
        assert_eq!(writer.commit().await.unwrap_err().code(), Code::Io);
        assert_eq!(cache.read("k", NOW).await.unwrap(), b"written by somebody else");
        cache.close().await;
        verified(&FileCache::open(options).unwrap());
    });
}
