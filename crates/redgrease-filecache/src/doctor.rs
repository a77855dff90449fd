//! Diagnosis of problems and risks. A part that cannot be examined is itself a finding.

use crate::disk::{Contents, Directory, Marker, other_format};
use crate::edge::{Disk, Outage};
use crate::error::{Code, Error, Result};
use crate::options::{Durability, Limits, Options};
use crate::report::{Finding, Info, Level};
use crate::store::redis::{Blocking, Server};

/// The findings.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, name: &'static str, message: impl Into<String>) {
        self.0.push(Finding { level, name, message: message.into() });
    }
}

/// Examines everything without changing it.
pub(crate) fn examine(
    info: &Result<Info>,
    directory: &Directory,
    server: Option<&Blocking>,
    options: &Options,
) -> Vec<Finding> {
    let mut findings = Findings::default();
    match info {
        Ok(info) => {
            let message = format!("cache {:016x}: {} entries, {} bytes", info.id, info.entries, info.bytes);
            findings.add(Level::Ok, "index", message);
        }
        Err(failure) => findings.add(Level::Error, "index", format!("not examined: {}", describe(failure, options))),
    }
    examine_server(&mut findings, server, options);
    examine_directory(&mut findings, directory, info.as_ref().ok(), options);
    findings.0
}

/// Examines a cache that cannot be opened.
pub(crate) fn examine_unopened(options: &Options, failure: &Error) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.add(Level::Error, "index", format!("the cache cannot be opened: {}", describe(failure, options)));
    match options.url.as_ref().map(|url| Server::new(url, options)).transpose() {
        Ok(server) => examine_server(&mut findings, server.map(Blocking::new).as_ref(), options),
        Err(error) => findings.add(Level::Error, "server", error.reason()),
    }
    let Options { durability, file_mode, directory_mode, .. } = *options;
    match Directory::open(&options.directory, durability, file_mode, directory_mode, true) {
        Ok(directory) => examine_directory(&mut findings, &directory, None, options),
        Err(error) => {
            let shown = options.directory.display();
            findings.add(Level::Error, "directory", format!("{shown}: {error}; name the directory of a cache"));
        }
    }
    findings.0
}

/// A problem and its consequence.
fn describe(failure: &Error, options: &Options) -> String {
    match options.server().filter(|_| failure.code() == Code::Unavailable) {
        Some(server) => format!("{}; {}", failure.reason(), consequence_of_outage(&server)),
        None => failure.reason(),
    }
}

fn consequence_of_outage(server: &str) -> String {
    format!("the cache works again once {server} answers; a lost index is then rebuilt from the directory")
}

fn examine_server(findings: &mut Findings, server: Option<&Blocking>, options: &Options) {
    let Some(server) = server else { return findings.add(Level::Ok, "server", "none: one host, file locks") };
    let settings = match server.settings() {
        Ok(settings) => settings,
        Err(Outage::Denied(message)) => {
            let message = format!("its settings cannot be read ({message}); persistence unknown: allow CONFIG GET");
            findings.add(Level::Warning, "server", message);
            return examine_memory(findings, server);
        }
        Err(Outage::Misnamed(message)) => return findings.add(Level::Error, "server", message),
        Err(Outage::Refused(message) | Outage::Unavailable(message)) => {
            let message =
                format!("not examined: {message}; {}", consequence_of_outage(&options.server().unwrap_or_default()));
            return findings.add(Level::Error, "server", message);
        }
    };
    let get = |name: &str| settings.get(name).map_or("", String::as_str);
    examine_memory(findings, server);
    let persistent = get("appendonly") == "yes" || !get("save").is_empty();
    let message = if persistent {
        "the index survives a restart of the server"
    } else {
        "none: after a restart the index is rebuilt from the directory"
    };
    findings.add(Level::Ok, "persistence", message);
}

/// Whether the server may evict the index.
fn examine_memory(findings: &mut Findings, server: &Blocking) {
    let Some(memory) = server.memory() else {
        return findings.add(Level::Warning, "maxmemory-policy", "unknown: allow INFO, and set noeviction");
    };
    let policy = &memory.policy;
    match memory.limit {
        0 => findings.add(Level::Ok, "maxmemory", "none"),
        bytes if policy == "noeviction" => {
            findings.add(Level::Ok, "maxmemory", format!("{bytes} bytes, noeviction: the index stays complete"));
        }
        _ => {}
    }
    if memory.evicts_index() {
        let message = format!("{memory}: the server may evict parts of the index; set noeviction");
        findings.add(Level::Error, "maxmemory-policy", message);
    } else if memory.policy_takes_index() {
        let message =
            format!("{policy}: the server may evict parts of the index once maxmemory is set; set noeviction");
        findings.add(Level::Warning, "maxmemory-policy", message);
    } else if memory.limit > 0 && policy != "noeviction" {
        let message = format!(
            "{memory}: the index has no expiry and stays, but other data goes first, and without such data writes are refused; \
             set noeviction"
        );
        findings.add(Level::Warning, "maxmemory-policy", message);
    }
}

/// The directory and its disk; `info`: the state of the index, if it is available.
fn examine_directory(findings: &mut Findings, directory: &Directory, info: Option<&Info>, options: &Options) {
    let marker = examine_marker(findings, directory);
    let limits = info.map(|info| info.limits).or_else(|| marker.map(|marker| marker.limits));
    match (limits, options.limits) {
        (None, _) => {
            findings.add(Level::Error, "limits", "not examined: neither the index nor the file CACHE is readable")
        }
        (Some(limits), given) => {
            if let Some(given) = given
                && given != limits
            {
                let message = format!("the cache has {}; those given here differ and are ignored", shown(&limits));
                findings.add(Level::Warning, "limits", message);
            }
            if limits.max_bytes == 0 && limits.min_free_bytes == 0 {
                findings.add(Level::Warning, "limits", "neither max_bytes nor min_free_bytes: the disk may fill up");
            } else {
                findings.add(Level::Ok, "limits", shown(&limits));
            }
        }
    }
    match directory.free_bytes() {
        Err(error) => findings.add(Level::Error, "disk", format!("its free bytes cannot be read: {error}")),
        Ok(free) => match info.map(|info| (info.limits.max_bytes, info.bytes)) {
            Some((most, bytes)) if most > 0 && most.saturating_sub(bytes) > free => {
                findings.add(Level::Warning, "disk", format!("{free} bytes free; max_bytes allows {most}"));
            }
            _ => findings.add(Level::Ok, "disk", format!("{free} bytes free")),
        },
    }
    if options.durability != Durability::Full {
        findings.add(Level::Warning, "durability", "not full: files may be lost in a power failure");
    }
    for (_, message) in directory.planted() {
        findings.add(Level::Error, "directory", message);
    }
    let shown = directory.path().display();
    let writable = if options.read_only { Ok(()) } else { directory.check_writable() };
    match directory.path().try_exists().and_then(|is_there| writable.map(|()| is_there)) {
        Ok(true) => findings.add(Level::Ok, "directory", shown.to_string()),
        Ok(false) => {
            findings.add(
                Level::Error,
                "directory",
                format!("{shown} does not exist; restore it, or open the cache again"),
            );
        }
        Err(error) => findings.add(Level::Error, "directory", format!("{shown}: {error}")),
    }
}

/// Examines the file CACHE.
fn examine_marker(findings: &mut Findings, directory: &Directory) -> Option<Marker> {
    let message = match directory.contents() {
        Ok(Contents::Cache(marker)) => {
            let server = marker.coordinator.as_deref().unwrap_or("none");
            let message = format!("format {}, namespace {}, server {server}", marker.format, marker.namespace);
            findings.add(Level::Ok, "marker", message);
            return Some(marker);
        }
        Ok(Contents::OtherFormat(format)) => other_format(format),
        Ok(Contents::Empty | Contents::Others(_)) => {
            "the file CACHE is missing; restore it from a backup, or open the cache once with adopt and its limits"
                .to_owned()
        }
        Err(error) => error.to_string(),
    };
    findings.add(Level::Error, "marker", message);
    None
}

fn shown(limits: &Limits) -> String {
    let mut parts = Vec::new();
    for (name, value) in [
        ("max_bytes", limits.max_bytes),
        ("max_entries", limits.max_entries),
        ("max_entry_bytes", limits.max_entry_bytes),
        ("min_free_bytes", limits.min_free_bytes),
    ] {
        if value > 0 {
            parts.push(format!("{name} {value}"));
        }
    }
    for (name, value) in [("max_age", limits.max_age), ("max_idle", limits.max_idle)] {
        if !value.is_zero() {
            parts.push(format!("{name} {value:?}"));
        }
    }
    if parts.is_empty() { "no limits".to_owned() } else { parts.join(", ") }
}
