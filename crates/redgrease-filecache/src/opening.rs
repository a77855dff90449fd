//! Binding a directory to an index, once, before anything is read or written.

use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use redgrease_cache_rules::memory::Memory;
use redgrease_cache_rules::protocol::{Bounds, Mode, Op, Reply, Request};

use crate::disk::{Contents, Directory, FORMAT, Marker, other_format};
use crate::edge::{Edge, Outage};

use crate::engine::{Begun, Doing, Engine, Rules};
use crate::error::{Cause, Error, Result};
use crate::options::{Limits, Options, Put};
use crate::store::journal::Journal;
use crate::store::redis::{Blocking, Server};

/// Age from which a temporary file of the proof of concept is abandoned: its leases lasted a minute.
const OLD_TEMPORARY: Duration = Duration::from_secs(60);

/// Block size for adopting a file.
const BLOCK: u64 = 4 << 20;

/// Whether the proof of concept would use this name for a temporary file: `.key.` and 6 or 8 random characters, mode
/// 0600.
fn is_old_temporary(name: &str, mode: u32) -> bool {
    let random = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')).filter(|(key, _)| !key.is_empty());
    mode & 0o777 == 0o600
        && random.is_some_and(|(_, random)| {
            let is_word = random.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            matches!(random.len(), 6 | 8) && is_word
        })
}

/// Refuses to adopt files that the limits would evict at once.
fn check_room(directory: &Directory, files: &[String], limits: &Limits) -> Result<()> {
    let bounds = Bounds::from(*limits);
    let (mut total, mut count) = (0u64, 0u64);
    for name in files.iter().filter(|name| !name.starts_with('.')) {
        let about = directory.open_flat(name).and_then(|file| file.metadata());
        let size = about.map_err(|error| Error::io("open", Some(name.as_bytes()), error))?.len();
        let largest = bounds.largest_entry();
        if largest != 0 && size > largest {
            return Err(bad(format!(
                "{name} has {size} bytes, and an entry may have {largest}; nothing was adopted: raise max_entry_bytes or \
                 max_bytes, or remove the file"
            )));
        }
        (total, count) = (total.saturating_add(size), count + 1);
    }
    for (what, found, most) in [("bytes", total, bounds.max_bytes), ("files", count, bounds.max_entries)] {
        if most != 0 && found > most {
            return Err(bad(format!(
                "the directory has {found} {what} to adopt, more than the {most} that the cache may have; nothing was \
                 adopted: raise the limits, or remove files"
            )));
        }
    }
    Ok(())
}

/// A directory that is ready to be used, and the pending work on the index.
pub(crate) struct Prepared {
    pub directory: Arc<Directory>,
    pub cache: u64,
    pub rules: Rules,
    /// Files of a flat cache that are to be adopted.
    flat: Vec<String>,
    /// The server that the directory was used with before: a missing index may still be there.
    moved_from: Option<String>,
    marker: Marker,
    /// Warnings from opening the cache.
    warnings: OnceLock<String>,
}

fn bad(message: String) -> Error {
    Error::new("open", None, Cause::BadConfig(message))
}

/// Examines the directory; creates the cache if there is none. If that is refused, a directory that was created is removed.
pub(crate) fn prepare(options: &Options) -> Result<Prepared> {
    options.check()?;
    let is_there = options.directory.symlink_metadata().is_ok();
    let prepared = prepare_directory(options);
    if prepared.is_err() && !is_there {
        // Removes only an empty one.
        let _ = std::fs::remove_dir(&options.directory);
    }
    prepared
}

fn prepare_directory(options: &Options) -> Result<Prepared> {
    let shown = options.directory.display();
    let open =
        |error| Error::io("open", None, std::io::Error::new(std::io::Error::kind(&error), format!("{shown}: {error}")));
    let (durability, read_only) = (options.durability, options.read_only);
    let directory =
        Directory::open(&options.directory, durability, options.file_mode, options.directory_mode, read_only)
            .map_err(open)?;
    if !read_only {
        directory.check_writable().map_err(open)?;
    }
    let coordinator = options.server();
    let mut flat = Vec::new();
    let contents = directory.contents().map_err(open)?;
    if let Contents::OtherFormat(format) = contents {
        return Err(bad(format!("{shown}: {}", other_format(format))));
    }
    let here = directory.place(Journal::instance()).map_err(open)?;
    let is_new = !matches!(contents, Contents::Cache(_));
    if is_new && read_only {
        return Err(bad(format!("{shown} is not a cache, and a read-only cache cannot be created")));
    }
    if is_new {
        check_server(options)?;
    }
    let mut marker = match contents {
        Contents::Cache(marker) => {
            if options.adopt {
                // What an interrupted adoption has left.
                flat = directory.flat_files().map_err(open)?;
            }
            marker
        }
        Contents::Others(_) if !options.adopt => {
            return Err(bad(format!(
                "{shown} is not empty and not a cache; choose another directory, or adopt its files with adopt"
            )));
        }
        contents => {
            if let Contents::Others(files) = contents {
                check_room(&directory, &files, &options.limits.unwrap_or_default())?;
                flat = files;
            }
            directory.prepare().and_then(|()| directory.prepare_shards()).map_err(open)?;
            let new = Marker {
                format: FORMAT,
                id: format!("{:016x}", random()?),
                namespace: options.namespace.clone(),
                coordinator: coordinator.clone(),
                limits: options.limits.unwrap_or_default(),
                place: here.clone(),
            };
            directory.write_marker(&new, false).map_err(open)?
        }
    };
    let is_own = match (&marker.place, &here) {
        (Some(place), Some(here)) if place.is_elsewhere(here) => {
            if !options.adopt || read_only {
                return Err(bad(format!(
                    "{shown} is a copy of a cache, or was moved to another file system (the file CACHE is of inode {} of \
                     device {}, the directory is inode {} of device {}); with the original it would lose entries: use the \
                     original, or make this one a cache of its own with adopt and another namespace",
                    place.inode, place.device, here.inode, here.device
                )));
            }
            false
        }
        _ => true,
    };
    if !is_own {
        marker.id = format!("{:016x}", random()?);
    }
    let cache = u64::from_str_radix(&marker.id, 16).map_err(|_| bad(format!("{shown}: the file CACHE is damaged")))?;
    let mut moved_from = None;
    let same_kind = marker.coordinator.is_none() == coordinator.is_none();
    if (marker.namespace != options.namespace || !same_kind) && !options.adopt {
        let with = |coordinator: &Option<String>| match coordinator {
            Some(server) => format!("coordinated by the server {server}"),
            None => "without a server".to_owned(),
        };
        return Err(bad(format!(
            "{shown} belongs to namespace {} {}, not to {} {}; open it with those, or take it over with adopt",
            marker.namespace,
            with(&marker.coordinator),
            options.namespace,
            with(&coordinator)
        )));
    }
    if marker.coordinator != coordinator && !options.adopt {
        moved_from.clone_from(&marker.coordinator);
    }
    let adopts =
        options.adopt && (marker.namespace != options.namespace || marker.coordinator != coordinator || !is_own);
    if adopts {
        marker.namespace.clone_from(&options.namespace);
        marker.coordinator.clone_from(&coordinator);
    }
    // The directory was on a file system without permanent inode numbers.
    let is_unplaced = marker.place.is_none() && here.is_some();
    if !read_only && (adopts || is_unplaced) {
        marker.place = here;
        directory.write_marker(&marker, true).map_err(open)?;
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let rules = Rules {
        lease: options.lease,
        check: options.check,
        on_outage: options.on_outage,
        owner: format!("{host}:{}", std::process::id()),
        namespace: options.namespace.clone(),
        bounds: Bounds::from(options.limits.unwrap_or(marker.limits)),
        read_only,
        patience: options.command_timeout,
    };
    Ok(Prepared { directory: Arc::new(directory), cache, rules, flat, moved_from, marker, warnings: OnceLock::new() })
}

fn random() -> Result<u64> {
    getrandom::u64().map_err(|error| Error::io("open", None, std::io::Error::other(error.to_string())))
}

/// Before a directory is bound to a server: checks that it answers, and that the namespace is not accidentally that of
/// the proof of concept.
fn check_server(options: &Options) -> Result<()> {
    let Some(url) = &options.url else { return Ok(()) };
    let server = Blocking::new(Server::new(url, options)?);
    server.pipe(redis::pipe().cmd("PING")).map_err(|outage| {
        Error::new(
            "open",
            None,
            match outage {
                Outage::Denied(message) => Cause::Denied(message),
                Outage::Misnamed(message) => Cause::BadConfig(message),
                Outage::Unavailable(message) | Outage::Refused(message) => Cause::Unavailable(message),
            },
        )
    })?;
    if options.adopt {
        return Ok(());
    }
    if let Some(key) = server.first_predecessor(&options.namespace) {
        return Err(bad(format!(
            "the namespace {} of this server is in use by another kind of cache (key {key}); choose another one, or take \
             it over with adopt",
            options.namespace
        )));
    }
    Ok(())
}

impl Prepared {
    /// Creates the index if it is missing, and refuses that of another cache.
    pub async fn arrive<E: Edge>(&self, engine: &Engine<E>, options: &Options) -> Result<()> {
        let doing = Doing::all("open");
        let request = Request { cache: self.cache, op: Op::Open { instance: engine.edge.instance() } };
        let answer = engine.edge.ask(request).await;
        match answer.map(|answer| answer.reply) {
            Ok(Reply::Foreign { .. }) if options.adopt => engine.rebuild(doing, true, None).await?,
            Ok(Reply::Lost) if self.moved_from.is_some() => {
                let old = self.moved_from.as_deref().unwrap_or_default();
                return Err(bad(format!(
                    "{} was coordinated by the server {old}, and this server knows nothing of it; use that server, or \
                     move the cache here with adopt",
                    options.directory.display()
                )));
            }
            Ok(_) => {}
            Err(_) if options.on_outage == crate::options::OnOutage::Degrade => return Ok(()),
            Err(outage) => return Err(engine.outage(doing, outage)),
        }
        let bounds = engine.info(doing).await?.bounds;
        // Building the index of a new cache is not counted.
        engine.counters.reset();
        if options.limits.is_some_and(|limits| Bounds::from(limits) != bounds) {
            tracing::warn!(
                namespace = options.namespace,
                "the cache keeps the limits it has; those that were given differ: change them with configure"
            );
        }
        if let Some(memory) = engine.edge.memory().await.filter(Memory::evicts_index) {
            let warning = format!(
                "the server evicts keys, and may evict the index of the cache ({memory}): set maxmemory-policy noeviction"
            );
            tracing::warn!(namespace = options.namespace, "{warning}");
            let _ = self.warnings.set(warning);
        }
        Ok(())
    }

    /// Warnings from opening the cache.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.get().cloned().into_iter().collect()
    }

    /// Adopts the files of a flat cache: each becomes the content of the key that is its name.
    pub async fn adopt_files<E: Edge>(&self, engine: &Engine<E>, options: &Options) -> Result<()> {
        let mut first_failure = None;
        for name in &self.flat {
            if let Err(error) = self.adopt_file(engine, name).await {
                tracing::warn!(name, %error, "cannot be adopted");
                first_failure.get_or_insert(error);
            }
        }
        if let Some(error) = first_failure {
            return Err(error);
        }
        if let (Some(url), true) = (&options.url, options.adopt) {
            Blocking::new(Server::new(url, options)?).forget_predecessors(&options.namespace);
        }
        Ok(())
    }

    async fn adopt_file<E: Edge>(&self, engine: &Engine<E>, name: &str) -> Result<()> {
        let doing = Doing::to("open", name.as_bytes());
        let failed = |error| Error::io("open", Some(name.as_bytes()), error);
        let mut file = match self.directory.open_flat(name) {
            // Another process has adopted it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(failed)?,
        };
        let about = file.metadata().map_err(failed)?;
        if name.starts_with('.') {
            let modified = about.modified().map_err(failed)?;
            let age = SystemTime::now().duration_since(modified).unwrap_or_default();
            if !is_old_temporary(name, about.mode()) {
                tracing::warn!(name, "not adopted: names of the old cache do not begin with a dot");
            } else if age > OLD_TEMPORARY {
                // Moved to the quarantine only: it may still be in use.
                self.directory.quarantine_flat(name).map_err(failed)?;
            }
            return Ok(());
        }
        let put = Put { size: Some(about.len()), ..Put::default() };
        let taken = match engine.begin(doing, Mode::Create, false, &put).await {
            Ok(Begun::Draft(mut draft)) => {
                let mut left = about.len();
                while left > 0 {
                    let mut block = Vec::new();
                    Read::by_ref(&mut file).take(BLOCK).read_to_end(&mut block).map_err(failed)?;
                    if block.is_empty() {
                        break;
                    }
                    left = left.saturating_sub(block.len() as u64);
                    engine.append(doing, &mut draft, block).await?;
                }
                engine.commit(doing, *draft, Vec::new(), false).await.map(drop)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match taken {
            Err(error) if error.code() != crate::error::Code::Exists => return Err(error),
            _ => {}
        }
        match self.directory.unlink_flat(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    pub fn remember(&self, limits: &Limits) -> std::io::Result<()> {
        // The current marker: another process may have changed it.
        let now = match self.directory.contents()? {
            Contents::Cache(marker) => marker,
            Contents::OtherFormat(format) => return Err(std::io::Error::other(other_format(format))),
            Contents::Empty | Contents::Others(_) => self.marker.clone(),
        };
        let marker = Marker { limits: *limits, ..now };
        self.directory.write_marker(&marker, true).map(drop)
    }
}
