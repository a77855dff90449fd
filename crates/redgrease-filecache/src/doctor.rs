//! What may go wrong, found before it does.

use crate::disk::Directory;
use crate::error::Result;
use crate::options::{Durability, Limits, Options};
use crate::report::{Finding, Info, Level};
use crate::store::redis::Blocking;

/// Looks at everything that can be looked at without changing it.
pub(crate) fn examine(
    info: &Info,
    directory: &Directory,
    server: Option<&Blocking>,
    options: &Options,
) -> Result<Vec<Finding>> {
    let mut findings = vec![Finding {
        level: Level::Ok,
        name: "index",
        message: format!("cache {:016x}: {} entries, {} bytes", info.id, info.entries, info.bytes),
    }];
    let mut say = |level, name, message: String| findings.push(Finding { level, name, message });
    match server {
        None => say(Level::Ok, "server", "none: one host, file locks".to_owned()),
        Some(server) => match server.settings() {
            Ok(settings) => {
                let get = |name: &str| settings.get(name).map_or("", String::as_str);
                match (get("maxmemory"), get("maxmemory-policy")) {
                    ("" | "0", _) => say(Level::Ok, "maxmemory", "none".to_owned()),
                    (bytes, "noeviction") => {
                        say(Level::Ok, "maxmemory", format!("{bytes} bytes, noeviction: the index stays whole"));
                    }
                    (bytes, policy) => say(
                        Level::Error,
                        "maxmemory-policy",
                        format!(
                            "{policy} at {bytes} bytes: the server may throw parts of the index away; set noeviction"
                        ),
                    ),
                }
                let persistent = get("appendonly") == "yes" || !get("save").is_empty();
                let (level, message) = if persistent {
                    (Level::Ok, "the index survives a restart of the server".to_owned())
                } else {
                    (Level::Ok, "none: after a restart the index is made anew from the directory".to_owned())
                };
                say(level, "persistence", message);
            }
            Err(outage) => {
                say(
                    Level::Warning,
                    "server",
                    format!("its settings cannot be read ({outage:?}); memory policy unknown"),
                );
            }
        },
    }
    if let Some(limits) = options.limits
        && limits != info.limits
    {
        let message = format!("the cache has {}; those given here differ and do not count", shown(&info.limits));
        say(Level::Warning, "limits", message);
    }
    if info.limits.max_bytes == 0 && info.limits.min_free_bytes == 0 {
        say(Level::Warning, "limits", "neither max_bytes nor min_free_bytes: the disk may fill up".to_owned());
    } else {
        say(Level::Ok, "limits", shown(&info.limits));
    }
    if info.limits.max_bytes > 0 && info.limits.max_bytes.saturating_sub(info.bytes) > info.free_bytes {
        let message = format!("{} bytes free; max_bytes allows {}", info.free_bytes, info.limits.max_bytes);
        say(Level::Warning, "disk", message);
    } else {
        say(Level::Ok, "disk", format!("{} bytes free", info.free_bytes));
    }
    if options.durability != Durability::Full {
        say(Level::Warning, "durability", "not full: files may be lost when the power fails".to_owned());
    }
    say(Level::Ok, "directory", directory.path().display().to_string());
    Ok(findings)
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
