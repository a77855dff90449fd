//! The directory of a cache on a real file system.
//!
//! ```text
//! root/CACHE                  the marker (format, id, namespace, bounds)
//!      files/<shard>/<name>   published files, never changed
//!      temporary/<name>       files being written
//!      quarantine/<name>      damaged files
//! ```
//! All paths are opened relative to the root, no symbolic link is followed below it, and only regular files are opened.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redgrease_cache_rules::name::{SHARDS, SIDECAR, shard_at};
use redgrease_cache_rules::place::Place;
use redgrease_cache_rules::protocol::Bounds;
use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, RawMode, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::edge::{Disk, Draft, Listed};
use crate::options::{Durability, Limits};

/// Name of the file that marks a directory as a cache.
pub(crate) const MARKER: &str = "CACHE";
const FILES: &str = "files";
const TEMPORARY: &str = "temporary";
const QUARANTINE: &str = "quarantine";

/// Version of the directory's layout. A directory of another version is refused.
///
/// Version 2: the shard of a key comes from its BLAKE3 hash.
pub(crate) const FORMAT: u32 = 2;

/// The contents of the marker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub format: u32,
    /// The random number that directory and index share, in hexadecimal.
    pub id: String,
    pub namespace: String,
    /// The server, without credentials; none: file locks.
    pub coordinator: Option<String>,
    pub limits: Limits,
    /// Where the directory is; none: the file system has no permanent inode numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// A directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    root: OwnedFd,
    durability: Durability,
    file_mode: Mode,
    directory_mode: Mode,
    read_only: bool,
}

/// The contents of a directory.
#[derive(Debug, PartialEq)]
pub(crate) enum Contents {
    Cache(Marker),
    /// A cache whose layout has another version.
    OtherFormat(u32),
    Empty,
    /// Other files; flat regular files could be keys of the proof of concept.
    Others(Vec<String>),
}

impl Directory {
    pub(crate) fn open(
        path: &Path,
        durability: Durability,
        file_mode: u32,
        directory_mode: u32,
        read_only: bool,
    ) -> io::Result<Self> {
        let directory_mode = Mode::from_raw_mode(directory_mode as RawMode);
        if !read_only {
            match rustix::fs::mkdir(path, directory_mode) {
                Ok(()) => {
                    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                    set_mode(&rustix::fs::open(path, flags, Mode::empty())?, directory_mode)?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        check_owner(&root, "the directory")?;
        let directory = Self {
            path: path.canonicalize()?,
            root,
            durability,
            file_mode: Mode::from_raw_mode(file_mode as RawMode),
            directory_mode,
            read_only,
        };
        for name in [FILES, TEMPORARY, QUARANTINE] {
            match directory.open_directory(name) {
                Ok(found) => check_owner(&found, name)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(FILES).join(name)
    }

    /// Opens a temporary file again by its current name, to append to it.
    pub(crate) fn reopen(&self, temporary: &str) -> io::Result<(Temporary, File)> {
        let path = format!("{TEMPORARY}/{temporary}");
        let file = self.open_beneath(&path, OFlags::RDWR | OFlags::APPEND, Mode::empty());
        let file = File::from(file.map_err(|error| self.explain(TEMPORARY, error))?);
        rustix::fs::fchmod(&file, self.file_mode)?;
        let whole = file.try_clone()?;
        Ok((Temporary { file, durability: self.durability }, whole))
    }

    pub(crate) fn path_of_temporary(&self, name: &str) -> PathBuf {
        self.path.join(TEMPORARY).join(name)
    }

    pub(crate) fn contents(&self) -> io::Result<Contents> {
        match self.read_root(MARKER) {
            Ok(bytes) => {
                return parse_marker(&bytes).map_err(|problem| {
                    let message = format!(
                        "the file {MARKER} is damaged ({problem}); the contents are not affected: restore it from a backup, or \
                         move it away and open the cache once with adopt and its limits"
                    );
                    io::Error::new(io::ErrorKind::InvalidData, message)
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut others = Vec::new();
        let mut any = false;
        for entry in Dir::read_from(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == MARKER {
                // It was created in the meantime.
                return self.contents();
            }
            // Ours: another process may be creating a cache here.
            let ours = matches!(name.as_str(), "." | ".." | FILES | TEMPORARY | QUARANTINE);
            if ours || name.starts_with(JOURNAL) || name.starts_with(NEW_MARKER) {
                continue;
            }
            any = true;
            if entry.file_type() == FileType::RegularFile {
                others.push(name);
            }
        }
        Ok(if any { Contents::Others(others) } else { Contents::Empty })
    }

    /// Files beside the cache's own, possibly left by an old flat cache.
    pub(crate) fn flat_files(&self) -> io::Result<Vec<String>> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name == MARKER || name.starts_with(JOURNAL) || name.starts_with(NEW_MARKER);
            if !ours && entry.file_type() == FileType::RegularFile {
                files.push(name);
            }
        }
        Ok(files)
    }

    fn read_root(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let (file, _) = self.open_regular(name)?;
        file.take(1 << 20).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes the marker and returns it. Without `replace`, an existing marker is kept and returned.
    pub(crate) fn write_marker(&self, marker: &Marker, replace: bool) -> io::Result<Marker> {
        let new = format!("{NEW_MARKER}-{:x}-{:x}", std::process::id(), fastrand::u64(..));
        let mut file = File::from(rustix::fs::openat(
            &self.root,
            &new,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            self.file_mode,
        )?);
        rustix::fs::fchmod(&file, self.file_mode)?;
        file.write_all(&serde_json::to_vec_pretty(marker)?)?;
        file.sync_all()?;
        let linked = if replace {
            rustix::fs::renameat(&self.root, &new, &self.root, MARKER)
        } else {
            let linked = rustix::fs::linkat(&self.root, &new, &self.root, MARKER, AtFlags::empty());
            rustix::fs::unlinkat(&self.root, &new, AtFlags::empty())?;
            linked
        };
        match linked {
            Ok(()) => {
                rustix::fs::fsync(&self.root)?;
                Ok(marker.clone())
            }
            Err(Errno::EXIST) => match self.contents()? {
                Contents::Cache(marker) => Ok(marker),
                Contents::OtherFormat(format) => Err(io::Error::other(other_format(format))),
                Contents::Empty | Contents::Others(_) => {
                    Err(io::Error::other(format!("the file {MARKER} was created and removed by another process")))
                }
            },
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes the directories that a cache has.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        [FILES, TEMPORARY, QUARANTINE].into_iter().try_for_each(|name| self.make_directory(name))
    }

    /// Makes all shards in advance. Some network file systems cache for about a minute that a file does not exist; a
    /// directory that exists from the start avoids that.
    pub(crate) fn prepare_shards(&self) -> io::Result<()> {
        for number in 0..SHARDS {
            self.make_unsynced(&format!("{FILES}/{}", shard_at(number)))?;
        }
        if self.durability == Durability::Full {
            rustix::fs::fsync(self.open_directory(FILES)?)?;
        }
        Ok(())
    }

    fn make_directory(&self, name: &str) -> io::Result<()> {
        if self.make_unsynced(name)? && self.durability == Durability::Full {
            let parent = name.rsplit_once('/').map_or(".", |(parent, _)| parent);
            rustix::fs::fsync(self.open_directory(parent)?)?;
        }
        Ok(())
    }

    /// Makes a directory if it is missing; returns whether it was.
    fn make_unsynced(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::mkdirat(&self.root, name, self.directory_mode) {
            Ok(()) => set_mode(&self.open_directory(name)?, self.directory_mode).map(|()| true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the directory of the cache was removed while it is open.
    fn is_removed(&self) -> bool {
        rustix::fs::fstat(&self.root).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn open_directory(&self, name: &str) -> io::Result<OwnedFd> {
        let opened = self.open_beneath(name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty());
        opened.map_err(|error| self.explain(name, error))
    }

    /// The location of this directory; `None` on a file system without permanent inode numbers.
    pub(crate) fn place(&self, boot: u64) -> io::Result<Option<Place>> {
        if PASSING_NUMBERS.contains(&(rustix::fs::fstatfs(&self.root)?.f_type as u64 & 0xffff_ffff)) {
            return Ok(None);
        }
        let stat = rustix::fs::fstat(&self.root)?;
        let device = if rustix::fs::major(stat.st_dev) == 0 { 0 } else { stat.st_dev };
        Ok(Some(Place { inode: stat.st_ino, device, boot }))
    }

    /// The first component of a path that exists and is not a directory, and what it is.
    fn first_planted(&self, path: &str) -> Option<(String, &'static str)> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for part in ends.map(|end| &path[..end]) {
            let stat = rustix::fs::statat(&self.root, part, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {}
                FileType::Symlink => return Some((part.to_owned(), "a symbolic link")),
                _ => return Some((part.to_owned(), "no directory")),
            }
        }
        None
    }

    /// Converts the error of a path into one that names the component that is not a directory.
    fn explain(&self, path: &str, error: io::Error) -> io::Error {
        match self.first_planted(path).filter(|_| is_planted(&error)) {
            Some((part, what)) => io::Error::new(io::ErrorKind::NotADirectory, planted(&part, what)),
            None => error,
        }
    }

    /// Checks that this user may write here; the error names the fix.
    pub(crate) fn check_writable(&self) -> io::Result<()> {
        for name in [".", FILES, TEMPORARY] {
            match rustix::fs::accessat(&self.root, name, Access::WRITE_OK, AtFlags::EACCESS) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => {
                    let message = format!("{name} cannot be written to by this user; open the cache read-only");
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn open_beneath(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            match rustix::fs::openat2(&self.root, name, flags, mode, resolve) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                // Kernels before 5.6, and sandboxes that do not allow the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.open_by_steps(name, flags, mode),
                result => return Ok(result?),
            }
        }
    }

    /// Like [`open_beneath`](Self::open_beneath), one component at a time.
    fn open_by_steps(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let Some((parents, last)) = name.rsplit_once('/') else {
            return Ok(rustix::fs::openat(&self.root, name, flags, mode)?);
        };
        let step = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut directory: Option<OwnedFd> = None;
        for parent in parents.split('/') {
            let from = directory.as_ref().unwrap_or(&self.root);
            directory = Some(rustix::fs::openat(from, parent, step, Mode::empty())?);
        }
        Ok(rustix::fs::openat(directory.as_ref().unwrap_or(&self.root), last, flags, mode)?)
    }

    /// Opens a regular file for reading, with its length; any other type of file is an error, and does not block.
    fn open_regular(&self, name: &str) -> io::Result<(File, u64)> {
        let file = self.open_beneath(name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).map_err(|error| {
            let directories = name.rsplit_once('/').map_or("", |(directories, _)| directories);
            let error = if directories.is_empty() { error } else { self.explain(directories, error) };
            // A symbolic link with a name of the cache: not a file of ours.
            if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) { not_regular(name) } else { error }
        })?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_regular(name));
        }
        Ok((File::from(file), stat.st_size as u64))
    }

    /// Opens a file of an old flat cache, to move its content.
    pub(crate) fn open_flat(&self, name: &str) -> io::Result<File> {
        Ok(self.open_regular(name)?.0)
    }

    /// Moves a file of an old flat cache to the quarantine.
    pub(crate) fn quarantine_flat(&self, name: &str) -> io::Result<()> {
        let aside = self.open_directory(QUARANTINE)?;
        rustix::fs::renameat(&self.root, name, &aside, name)?;
        begin_quarantine(&aside, name);
        Ok(())
    }

    /// Unlinks a file of an old flat cache.
    pub(crate) fn unlink_flat(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, name, AtFlags::empty())?)
    }

    /// Unlinks a file; returns whether it existed.
    fn unlink_in(&self, directory: &str, name: &str) -> io::Result<bool> {
        let directory = match self.open_directory(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            directory => directory?,
        };
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::STALE) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn list_at(&self, path: &str) -> io::Result<Vec<Listed>> {
        let directory = match self.open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            // One shard was replaced: the others remain usable. If all were, nothing can be answered.
            Err(error) if self.first_planted(path).is_some_and(|(part, _)| part.contains('/')) => {
                tracing::warn!(path, %error, "skipped");
                return Ok(Vec::new());
            }
            result => result?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut listed = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            // Files that NFS keeps because they are open elsewhere disappear by themselves.
            if matches!(bytes, b"." | b"..") || bytes.starts_with(b".nfs") {
                continue;
            }
            let stat = match rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT | Errno::STALE) => continue,
                result => result?,
            };
            let micros = |seconds: i64, nanos: u64| seconds.max(0) as u64 * 1_000_000 + nanos / 1000;
            let changed = micros(stat.st_mtime, stat.st_mtime_nsec);
            listed.push(Listed {
                name: String::from_utf8_lossy(bytes).into_owned(),
                size: stat.st_size as u64,
                used: changed.max(micros(stat.st_atime, stat.st_atime_nsec)),
                age: now.saturating_sub(Duration::from_micros(changed)),
            });
        }
        Ok(listed)
    }

    /// The file that holds the index of a cache without a server.
    pub(crate) fn open_journal(&self, name: &str, new: bool) -> io::Result<File> {
        if self.read_only {
            return Ok(File::from(self.open_beneath(name, OFlags::RDONLY, Mode::empty())?));
        }
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        match self.open_beneath(name, create, self.file_mode) {
            Ok(file) => {
                rustix::fs::fchmod(&file, self.file_mode)?;
                Ok(File::from(file))
            }
            // Another user of our group made it, and chose its mode.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !new => {
                Ok(File::from(self.open_beneath(name, OFlags::RDWR, Mode::empty())?))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn rename_journal(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.root, from, &self.root, to)?)
    }

    pub(crate) fn unlink_journal(&self, name: &str) -> io::Result<()> {
        self.unlink_in(".", name).map(drop)
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }
}

/// Prefix of the names of the journal and of its lock.
pub(crate) const JOURNAL: &str = "JOURNAL";
const NEW_MARKER: &str = ".CACHE";

fn not_regular(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not a regular file of the cache; remove it"))
}

/// Parses a marker. Of another version only the format number is read; its other fields may differ.
fn parse_marker(bytes: &[u8]) -> Result<Contents, String> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let Head { format } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if format != FORMAT {
        return Ok(Contents::OtherFormat(format));
    }
    let marker: Marker = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if u64::from_str_radix(&marker.id, 16).is_err() {
        return Err(format!("its id is {:?}, not a number in hexadecimal", marker.id));
    }
    Ok(Contents::Cache(marker))
}

/// The reason why a cache with this format version is refused.
pub(crate) fn other_format(format: u32) -> String {
    format!(
        "the directory has format {format}, but this version of redgrease reads format {FORMAT}: use the version that created it, \
         or delete the directory and create the cache again"
    )
}

/// Whether a directory of the cache was replaced by something else.
pub(crate) fn is_planted(error: &io::Error) -> bool {
    let codes = [Errno::NOTDIR, Errno::LOOP, Errno::XDEV].map(Errno::raw_os_error);
    error.kind() == io::ErrorKind::NotADirectory || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn planted(part: &str, what: &str) -> String {
    format!("{part} is {what}, not the cache's own directory: remove it and restore the directory")
}

/// File systems that assign new inode numbers at each mount (FAT, exFAT, SMB, 9P, FUSE), by their magic numbers.
const PASSING_NUMBERS: [u64; 7] = [0x4d44, 0x2011_bab0, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x6573_5546];

/// The quarantine time starts now, regardless of the age of the file.
fn begin_quarantine(aside: &OwnedFd, name: &str) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    if let Err(error) = rustix::fs::utimensat(aside, name, &times, AtFlags::SYMLINK_NOFOLLOW) {
        tracing::debug!(name, %error, "the time of its quarantine cannot be noted");
    }
}

/// Sets the requested mode regardless of the umask; an inherited set-group-ID bit is kept.
fn set_mode(directory: &OwnedFd, mode: Mode) -> io::Result<()> {
    let inherited = Mode::from_raw_mode(rustix::fs::fstat(directory)?.st_mode) & Mode::SGID;
    Ok(rustix::fs::fchmod(directory, mode | inherited)?)
}

/// Checks that no other user has created it.
fn check_owner(directory: &OwnedFd, name: &str) -> io::Result<()> {
    let stat = rustix::fs::fstat(directory)?;
    let me = rustix::process::geteuid().as_raw();
    let mode = Mode::from_raw_mode(stat.st_mode);
    let denied = |message: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    if mode.contains(Mode::WOTH) {
        return denied(format!(
            "{name} is writable by all users; run chmod o-w on it, or choose a directory of your own"
        ));
    }
    if stat.st_uid == me || stat.st_uid == 0 || me == 0 {
        return Ok(());
    }
    // A directory of another user is accepted if it was shared with a group of ours on purpose.
    let groups = rustix::process::getgroups()?;
    let ours =
        stat.st_gid == rustix::process::getegid().as_raw() || groups.iter().any(|group| group.as_raw() == stat.st_gid);
    if ours && mode.intersects(Mode::WGRP | Mode::RGRP) {
        return Ok(());
    }
    denied(format!("{name} belongs to user {} and is not shared with a group of this user", stat.st_uid))
}

/// NFS reports a file that another host unlinked as missing.
fn stale_is_missing(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) { io::ErrorKind::NotFound.into() } else { error }
}

/// A temporary file.
#[derive(Debug)]
pub struct Temporary {
    file: File,
    durability: Durability,
}

impl Draft for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(io::SeekFrom::Start(length)).map(drop)
    }

    fn finish(self) -> io::Result<()> {
        // Syncing also reports errors that NFS otherwise reports only on close.
        if self.durability == Durability::None { Ok(()) } else { self.file.sync_all() }
    }
}

fn removed() -> io::Error {
    io::Error::other("the directory of the cache was removed")
}

impl Disk for Directory {
    type Draft = Temporary;
    type File = File;

    fn create(&self, temporary: &str) -> io::Result<Temporary> {
        let path = format!("{TEMPORARY}/{temporary}");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file = match self.open_beneath(&path, flags, self.file_mode) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Cleanup programs remove empty directories.
                self.prepare().map_err(|_| removed())?;
                self.open_beneath(&path, flags, self.file_mode)?
            }
            file => file.map_err(|error| self.explain(TEMPORARY, error))?,
        };
        rustix::fs::fchmod(&file, self.file_mode)?;
        Ok(Temporary { file: File::from(file), durability: self.durability })
    }

    fn write_small(&self, temporary: &str, content: &[u8]) -> io::Result<()> {
        let mut draft = self.create(temporary)?;
        draft.write(content)?;
        draft.finish()
    }

    fn publish(&self, temporary: &str, name: &str, sync: bool) -> io::Result<()> {
        let (shard, name) = name.split_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        let shard = format!("{FILES}/{shard}");
        let target = match self.open_directory(&shard) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.prepare()?;
                self.make_directory(&shard)?;
                self.open_directory(&shard)?
            }
            target => target?,
        };
        match rustix::fs::renameat(self.open_directory(TEMPORARY)?, temporary, &target, name) {
            Ok(()) => {}
            // A network file system may have renamed it, and report an error for the repeated call. The name is unique.
            Err(Errno::NOENT | Errno::EXIST)
                if rustix::fs::statat(&target, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {}
            Err(errno) => return Err(errno.into()),
        }
        if sync && self.durability == Durability::Full {
            rustix::fs::fsync(&target)?;
        }
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<(File, u64)> {
        let path = format!("{FILES}/{name}");
        match self.open_regular(&path) {
            // Another host has just unlinked it, or the reply of the file system is outdated.
            Err(error) if error.raw_os_error() == Some(Errno::STALE.raw_os_error()) => self.open_regular(&path),
            // Without its directory the state of an entry is unknown, so it is not reported as lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_removed() => Err(removed()),
            result => result,
        }
        .map_err(stale_is_missing)
    }

    fn read(&self, file: &mut File, most: u64, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        buffer.clear();
        buffer.reserve_exact(usize::try_from(most).unwrap_or(0).min(1 << 30));
        file.take(most).read_to_end(&mut buffer).map_err(stale_is_missing)?;
        Ok(buffer)
    }

    fn digest(&self, file: &mut File) -> io::Result<[u8; 16]> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
        }
        Ok(hasher.finalize().as_bytes()[..16].try_into().expect("32 bytes have a first half"))
    }

    fn unlink(&self, name: &str) -> io::Result<bool> {
        let (shard, name) = name.split_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        let shard = format!("{FILES}/{shard}");
        let was_there = self.unlink_in(&shard, name)?;
        if name.ends_with("~m") {
            self.unlink_in(&shard, &format!("{name}{SIDECAR}"))?;
        }
        Ok(was_there)
    }

    fn unlink_temporary(&self, name: &str) -> io::Result<bool> {
        self.unlink_in(TEMPORARY, name)
    }

    fn empty_quarantine(&self, age: Duration) -> io::Result<()> {
        for listed in self.list_at(QUARANTINE)?.into_iter().filter(|listed| listed.age >= age) {
            self.unlink_in(QUARANTINE, &listed.name)?;
        }
        Ok(())
    }

    fn quarantine(&self, name: &str) -> io::Result<bool> {
        let (shard, name) = name.split_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        let shard = format!("{FILES}/{shard}");
        let aside = match self.open_directory(QUARANTINE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory(QUARANTINE)?;
                self.open_directory(QUARANTINE)?
            }
            aside => aside?,
        };
        let moved = match rustix::fs::renameat(self.open_directory(&shard)?, name, &aside, name) {
            Ok(()) => {
                begin_quarantine(&aside, name);
                true
            }
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(errno.into()),
        };
        if name.ends_with("~m") {
            self.unlink_in(&shard, &format!("{name}{SIDECAR}"))?;
        }
        Ok(moved)
    }

    fn planted(&self) -> Vec<(String, String)> {
        let shards = (0..SHARDS).map(|number| format!("{FILES}/{}", shard_at(number)));
        let mut found: Vec<(String, String)> = Vec::new();
        for path in [FILES, TEMPORARY, QUARANTINE].into_iter().map(str::to_owned).chain(shards) {
            if let Some((part, what)) = self.first_planted(&path)
                && part == path
            {
                let message = planted(&part, what);
                found.push((part, message));
            }
        }
        found
    }

    fn list(&self, shard: &str) -> io::Result<Vec<Listed>> {
        self.list_at(&format!("{FILES}/{shard}"))
    }

    fn list_temporaries(&self) -> io::Result<Vec<Listed>> {
        self.list_at(TEMPORARY)
    }

    fn bounds(&self) -> Option<Bounds> {
        match self.contents() {
            Ok(Contents::Cache(marker)) => Some(marker.limits.into()),
            _ => None,
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
