//! The directories of sets of requirements, and the wheels in them: on their way to replicas and data files, and back.
//!
//! Each set has a directory with `wheels` and `packages`, made by `redgrease.worker.install`. Wheels that come from
//! elsewhere are collected beside it, and put in its place when they are complete. A server holds a shared lock of each
//! directory that it uses, so that no other server that shares them removes it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use redgrease_core::requirement::{Requirement, WheelFile, is_wheel_name};
use redgrease_core::saved::{ByteBuf, Change, SavedWheel};
use redgrease_engine::effect::WheelsOf;
use rustix::fs::{FlockOperation, flock};

use crate::background::Background;
use crate::os_user::OsUser;

/// Bytes of a wheel that are sent in one command.
const PART_BYTES: usize = 1 << 20;

/// Jobs that may wait: more than the engine requests.
const JOBS_MAX: usize = 1000;

/// How far the wheels of a set were sent.
#[derive(Debug)]
pub struct Share {
    /// The wheels.
    pub wheels: WheelsOf,
    index: usize,
    offset: u64,
}

/// Work for the thread.
enum Job {
    /// Reads the next part of wheels.
    Read { directory: PathBuf, share: Share },
    /// Reads wheels and encodes them.
    Export { export: u64, directory: PathBuf, requirement: Requirement, wheels: Vec<SavedWheel> },
    /// Stores wheels, unless the set is there.
    Store { import: u64, directory: PathBuf, wheels: Vec<WheelFile>, user: Option<OsUser> },
    /// Removes the directory of a set.
    Remove { directory: PathBuf },
}

/// What the thread has done.
pub enum Done {
    /// A change to be sent, encoded; `None`: all was sent.
    Part(Share, Result<Option<Vec<u8>>, String>),
    /// A requirement was read.
    Exported(u64, Result<Vec<u8>, String>),
    /// Wheels were stored.
    Stored(u64, Result<(), String>),
    /// A directory was removed.
    Removed,
}

/// The directories.
pub struct Wheels {
    thread: Background<Job, Done>,
    /// As configured: a relative one is below the server's working directory, which may change.
    base: PathBuf,
    /// The user that owns what is installed.
    pub user: Option<OsUser>,
    /// The locks of sets that are used.
    locks: RefCell<BTreeMap<PathBuf, File>>,
    /// Sets whose last part is on its way to other shards.
    paused: RefCell<BTreeMap<String, Share>>,
}

impl Wheels {
    /// Starts the thread. `base` holds the directories, which belong to `user`.
    pub fn start(base: &str, user: Option<OsUser>) -> Result<Wheels, String> {
        let thread = Background::start("rg-wheels", JOBS_MAX, perform)?;
        Ok(Wheels { thread, base: base.into(), user, locks: RefCell::default(), paused: RefCell::default() })
    }

    /// Readable when something was done.
    pub fn ready_fd(&self) -> RawFd {
        self.thread.ready_fd()
    }

    /// What was done since the last call.
    pub fn done(&self) -> Vec<Done> {
        self.thread.answers()
    }

    /// The directory of a set of requirements.
    pub fn directory(&self, environment: &str) -> PathBuf {
        std::env::current_dir().unwrap_or_default().join(&self.base).join(directory_name(environment))
    }

    /// Begins to send wheels.
    pub fn share(&self, wheels: WheelsOf) -> bool {
        // The names alone are one change.
        let index = if wheels.locked { wheels.wheels.len() } else { 0 };
        self.read(Share { wheels, index, offset: 0 })
    }

    /// Reads no further part until [`Wheels::share_on`].
    pub fn pause(&self, share: Share) {
        self.paused.borrow_mut().insert(share.wheels.environment.clone(), share);
    }

    /// Reads the next part of a set; `false` if there is no space for the job.
    pub fn share_on(&self, environment: &str) -> bool {
        let share = self.paused.borrow_mut().remove(environment);
        share.is_none_or(|share| self.read(share))
    }

    fn read(&self, share: Share) -> bool {
        let directory = self.directory(&share.wheels.environment);
        self.thread.submit(Job::Read { directory, share })
    }

    /// Reads wheels to be exported.
    pub fn export(&self, export: u64, name: String, platform: &str, wheels: WheelsOf) -> bool {
        let requirement = Requirement { name, platform: platform.to_owned(), wheels: Vec::new() };
        let directory = self.directory(&wheels.environment);
        self.thread.submit(Job::Export { export, directory, requirement, wheels: wheels.wheels })
    }

    /// Stores wheels that were imported.
    pub fn store(&self, import: u64, environment: &str, wheels: Vec<WheelFile>) -> bool {
        let (directory, user) = (self.directory(environment), self.user.clone());
        self.thread.submit(Job::Store { import, directory, wheels, user })
    }

    /// Removes a set, unless another server uses it. What cannot be queued stays on the disk.
    pub fn remove(&self, environment: &str) {
        let directory = self.directory(environment);
        self.locks.borrow_mut().remove(&directory);
        self.thread.submit(Job::Remove { directory });
    }

    /// Locks a directory with packages against removal by others.
    ///
    /// # Errors
    /// It was removed meanwhile.
    pub fn hold(&self, packages: &Path) -> io::Result<()> {
        let Some(directory) = packages.parent() else { return Ok(()) };
        let file = File::open(directory)?;
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        if !is_same(&file, directory) || !packages.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        self.locks.borrow_mut().insert(directory.to_owned(), file);
        Ok(())
    }

    /// Keeps a part of a wheel that comes from elsewhere.
    pub fn keep_part(&self, environment: &str, file: &str, offset: u64, part: &[u8]) -> io::Result<()> {
        check_name(file)?;
        let incoming = beside(&self.directory(environment), "incoming");
        fs::create_dir_all(&incoming)?;
        let file = File::options().create(true).write(true).truncate(offset == 0).open(incoming.join(file))?;
        file.write_all_at(part, offset)
    }

    /// All parts of the wheels of a set have come: it is installed from them.
    pub fn keep(&self, wheels: &WheelsOf) -> io::Result<()> {
        let directory = self.directory(&wheels.environment);
        let incoming = beside(&directory, "incoming");
        let kept = keep(&directory, &incoming, wheels);
        // What is left of it is incomplete, or was there before.
        let _ = fs::remove_dir_all(&incoming);
        if let (Ok(true), Some(user)) = (&kept, &self.user) {
            user.own_all(&directory)?;
        }
        kept.map(|_| ())
    }

    /// Passes all wheels of a set, in parts, to `write`, as changes. What cannot be read is replaced by its names.
    pub fn read_all(&self, wheels: &WheelsOf, write: &mut dyn FnMut(&Change)) {
        let directory = self.directory(&wheels.environment);
        let mut wheels = wheels.clone();
        let (mut index, mut offset) = (0, 0);
        while !wheels.locked && index < wheels.wheels.len() {
            match read_part(&directory, &wheels, (index, offset)) {
                Ok((change, next)) => {
                    write(&change);
                    (index, offset) = next;
                }
                Err(_) => wheels.locked = true,
            }
        }
        write(&complete(&wheels));
    }
}

/// A name for the directory of a set: readable, and different for different sets.
fn directory_name(environment: &str) -> String {
    // All users trust the contents of the directory to match its name: collisions must be infeasible.
    let hash = blake3::hash(environment.as_bytes()).to_hex();
    let readable: String =
        environment.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    format!("{readable}-{hash}")
}

/// A directory beside another one, which no other process uses.
fn beside(directory: &Path, purpose: &str) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!("{name}.{purpose}-{}", std::process::id()))
}

fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(present)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (present.dev(), present.ino())
}

fn check_name(file: &str) -> io::Result<()> {
    match is_wheel_name(file) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("'{file}' is not the name of a wheel"))),
    }
}

/// The change behind the last part of the wheels.
fn complete(wheels: &WheelsOf) -> Change {
    Change::Wheels { environment: wheels.environment.clone(), wheels: wheels.wheels.clone(), locked: wheels.locked }
}

/// Reads a part; returns it with the position of the next one.
fn read_part(directory: &Path, wheels: &WheelsOf, (index, offset): (usize, u64)) -> io::Result<(Change, (usize, u64))> {
    let wheel = &wheels.wheels[index];
    let file = File::open(directory.join("wheels").join(&wheel.file))?;
    if file.metadata()?.len() != wheel.bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} was changed", wheel.file)));
    }
    let len = (wheel.bytes - offset).min(PART_BYTES as u64);
    let mut part = vec![0; len as usize];
    file.read_exact_at(&mut part, offset)?;
    let next = if offset + len < wheel.bytes { (index, offset + len) } else { (index + 1, 0) };
    let environment = wheels.environment.clone();
    Ok((Change::WheelPart { environment, file: wheel.file.clone(), offset, part: ByteBuf::from(part) }, next))
}

fn perform(job: Job) -> Done {
    match job {
        Job::Read { directory, mut share } => {
            if share.index > share.wheels.wheels.len() {
                return Done::Part(share, Ok(None));
            }
            if share.index == share.wheels.wheels.len() {
                share.index += 1;
                let change = complete(&share.wheels).encode();
                return Done::Part(share, Ok(Some(change)));
            }
            let part = read_part(&directory, &share.wheels, (share.index, share.offset));
            let result = part.map(|(change, next)| {
                (share.index, share.offset) = next;
                Some(change.encode())
            });
            Done::Part(share, result.map_err(|error| format!("{}: {error}", directory.display())))
        }
        Job::Export { export, directory, mut requirement, wheels } => {
            let read = |wheel: SavedWheel| {
                let path = directory.join("wheels").join(&wheel.file);
                let data =
                    fs::read(&path).map_err(|error| format!("Could not open file {}: {error}", path.display()))?;
                Ok(WheelFile { file: wheel.file, data: ByteBuf::from(data) })
            };
            let result = wheels.into_iter().map(read).collect::<Result<_, String>>().map(|wheels| {
                requirement.wheels = wheels;
                requirement.encode()
            });
            Done::Exported(export, result)
        }
        Job::Store { import, directory, wheels, user } => {
            let stored = store(&directory, &wheels, user.as_ref());
            let failed = |error| format!("Failed writing data to file: {}: {error}", directory.display());
            Done::Stored(import, stored.map_err(failed))
        }
        Job::Remove { directory } => {
            // Another server uses it, or it is not there.
            let _ = remove(&directory);
            Done::Removed
        }
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    let file = File::open(directory)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    if !is_same(&file, directory) {
        return Ok(());
    }
    let removed = beside(directory, "removed");
    fs::rename(directory, &removed)?;
    fs::remove_dir_all(&removed)
}

fn store(directory: &Path, wheels: &[WheelFile], user: Option<&OsUser>) -> io::Result<()> {
    if directory.join("packages").is_dir() {
        return Ok(());
    }
    let fresh = beside(directory, "import");
    let into = fresh.join("wheels");
    let written = (|| {
        fs::create_dir_all(&into)?;
        for wheel in wheels {
            check_name(&wheel.file)?;
            fs::write(into.join(&wheel.file), &wheel.data)?;
        }
        put(&fresh, directory)?;
        user.map_or(Ok(()), |user| user.own_all(directory))
    })();
    // Gone if all went well.
    let _ = fs::remove_dir_all(&fresh);
    written
}

/// Puts a directory in the place of another one.
fn put(fresh: &Path, directory: &Path) -> io::Result<()> {
    let old = beside(directory, "old");
    match fs::rename(directory, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(fresh, directory)?;
    let _ = fs::remove_dir_all(&old);
    Ok(())
}

/// Puts wheels that have come into the directory of their set, unless the same are there; returns whether it did.
fn keep(directory: &Path, incoming: &Path, wheels: &WheelsOf) -> io::Result<bool> {
    wheels.wheels.iter().try_for_each(|wheel| check_name(&wheel.file))?;
    let present = |wheel: &SavedWheel| {
        let found = fs::metadata(directory.join("wheels").join(&wheel.file));
        found.is_ok_and(|found| found.len() == wheel.bytes)
    };
    if wheels.wheels.iter().all(present) {
        return Ok(false);
    }
    let fresh = beside(directory, "new");
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh)?;
    if wheels.locked {
        let lines: Vec<String> =
            wheels.wheels.iter().map(|wheel| format!("{} {}\n", wheel.file, wheel.sha256)).collect();
        fs::write(fresh.join("locked"), lines.concat())?;
    } else {
        for wheel in &wheels.wheels {
            let found = fs::metadata(incoming.join(&wheel.file))?.len();
            if found != wheel.bytes {
                let text = format!("{} has {found} bytes instead of {}", wheel.file, wheel.bytes);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        fs::rename(incoming, fresh.join("wheels"))?;
    }
    put(&fresh, directory)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Base(PathBuf);

    impl Drop for Base {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn base(name: &str) -> (Base, Wheels) {
        let path = std::env::temp_dir().join(format!("rg-wheels-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let wheels = Wheels::start(path.to_str().unwrap(), None).unwrap();
        (Base(path), wheels)
    }

    fn of(environment: &str, files: &[(&str, &[u8])], locked: bool) -> WheelsOf {
        let wheel = |(file, data): &(&str, &[u8])| SavedWheel {
            file: (*file).to_owned(),
            bytes: data.len() as u64,
            sha256: "0f".to_owned(),
        };
        WheelsOf { environment: environment.into(), wheels: files.iter().map(wheel).collect(), locked }
    }

    fn answer(wheels: &Wheels) -> Done {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            if let Some(done) = wheels.done().pop() {
                return done;
            }
            assert!(std::time::Instant::now() < deadline, "no answer within 10 s");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Stores wheels by an import.
    fn store_in(wheels: &Wheels, environment: &str, files: &[(&str, &[u8])]) {
        let file =
            |(file, data): &(&str, &[u8])| WheelFile { file: (*file).to_owned(), data: ByteBuf::from(data.to_vec()) };
        assert!(wheels.store(1, environment, files.iter().map(file).collect()));
        assert!(matches!(answer(wheels), Done::Stored(1, Ok(()))));
    }

    #[test]
    fn different_sets_have_different_directories() {
        assert_ne!(directory_name("a>1"), directory_name("a<1"));
    }

    #[test]
    fn what_one_server_reads_another_one_keeps() {
        let (from, to) = (base("from"), base("to"));
        let big = vec![7; PART_BYTES * 2 + 1];
        let files: [(&str, &[u8]); 3] =
            [("a-1-py3-none-any.whl", b"a"), ("b-1-py3-none-any.whl", &big), ("c-1-x.whl", b"")];
        store_in(&from.1, "a", &files);
        let mut parts = 0;
        from.1.read_all(&of("a", &files, false), &mut |change| match change {
            Change::WheelPart { environment, file, offset, part } => {
                parts += 1;
                to.1.keep_part(environment, file, *offset, part).unwrap();
            }
            Change::Wheels { .. } => to.1.keep(&of("a", &files, false)).unwrap(),
            other => panic!("{other:?}"),
        });
        assert_eq!(parts, 5);
        for (file, data) in files {
            assert_eq!(fs::read(to.1.directory("a").join("wheels").join(file)).unwrap(), data);
        }
        assert_eq!(fs::read_dir(&to.0.0).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn incomplete_wheels_are_refused_and_leave_nothing() {
        let (directory, wheels) = base("incomplete");
        wheels.keep_part("a", "a-1-py3-none-any.whl", 0, b"ab").unwrap();
        let error = wheels.keep(&of("a", &[("a-1-py3-none-any.whl", b"abc")], false)).unwrap_err();
        assert!(error.to_string().contains("has 2 bytes instead of 3"), "{error}");
        assert!(wheels.keep(&of("a", &[("a-1-py3-none-any.whl", b"abc")], false)).is_err(), "no file");
        assert!(wheels.keep_part("a", "../a.whl", 0, b"").is_err());
        assert!(!wheels.directory("a").exists());
        let left: Vec<_> = fs::read_dir(&directory.0).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().contains(".new-")), "{left:?}");
    }

    #[test]
    fn what_cannot_be_read_is_sent_by_name() {
        let (_directory, wheels) = base("unreadable");
        let mut changes = Vec::new();
        wheels
            .read_all(&of("a", &[("a-1-py3-none-any.whl", b"abc")], false), &mut |change| changes.push(change.clone()));
        assert!(matches!(&changes[..], [Change::Wheels { locked: true, .. }]));
        wheels.keep(&of("a", &[("a-1-py3-none-any.whl", b"abc")], true)).unwrap();
        let locked = fs::read_to_string(wheels.directory("a").join("locked")).unwrap();
        assert_eq!(locked, "a-1-py3-none-any.whl 0f\n");
    }

    #[test]
    fn a_set_that_another_server_uses_is_not_removed() {
        let (directory, wheels) = base("used");
        let other = Wheels::start(directory.0.to_str().unwrap(), None).unwrap();
        store_in(&wheels, "a", &[("a-1-py3-none-any.whl", b"a")]);
        let packages = wheels.directory("a").join("packages");
        assert!(wheels.hold(&packages).is_err(), "there are no packages");
        fs::create_dir(&packages).unwrap();
        wheels.hold(&packages).unwrap();
        other.hold(&packages).unwrap();
        wheels.remove("a");
        assert!(matches!(answer(&wheels), Done::Removed));
        assert!(packages.is_dir());
        other.remove("a");
        assert!(matches!(answer(&other), Done::Removed));
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
    }

    #[test]
    fn an_export_contains_the_wheels() {
        let (_directory, wheels) = base("export");
        let files: [(&str, &[u8]); 1] = [("a-1-py3-none-any.whl", b"abc")];
        store_in(&wheels, "a", &files);
        assert!(wheels.export(7, "a".to_owned(), "linux-x86_64", of("a", &files, false)));
        let Done::Exported(7, Ok(encoded)) = answer(&wheels) else { panic!("no export") };
        let requirement = Requirement::decode(&encoded).unwrap();
        assert_eq!((requirement.name.as_str(), requirement.wheels[0].data.as_slice()), ("a", b"abc".as_slice()));
    }
}
