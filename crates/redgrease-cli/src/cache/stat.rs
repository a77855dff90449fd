//! `redgrease cache stat`: the whole cache, or one entry.

use std::process::ExitCode;

use anyhow::Result;
use redgrease_filecache::{Info, Limits, Stat};
use serde_json::{Value, json};

use super::args;
use super::keys;
use super::refusal::Refusal;
use crate::output::{print, say};
use crate::units::{ago, epoch_seconds, show_bytes, show_duration, show_time};

pub fn run(args: &args::Stat) -> Result<ExitCode> {
    let Some(word) = &args.key else {
        let info = args.place.open_to_look()?.info()?;
        print(&if args.place.json { format!("{}\n", info_json(&info)) } else { info_text(&info) })?;
        return Ok(ExitCode::SUCCESS);
    };
    let key = args.form.key(word)?;
    let Some(entry) = args.place.open_to_look()?.stat(&key)? else {
        return Ok(missing(&key, args.place.json));
    };
    print(&if args.place.json { format!("{}\n", entry_json(&entry)) } else { entry_text(&entry) })?;
    Ok(ExitCode::SUCCESS)
}

/// Reports a missing entry; returns the exit code.
pub fn missing(key: &[u8], is_json: bool) -> ExitCode {
    let refusal = Refusal::missing(key);
    if is_json {
        say(refusal.json());
    } else {
        say(format_args!("redgrease: {refusal}"));
    }
    refusal.status()
}

pub fn info_json(info: &Info) -> Value {
    json!({
        "id": format!("{:016x}", info.id),
        "namespace": info.namespace,
        "entries": info.entries,
        "bytes": info.bytes,
        "reserved_bytes": info.reserved_bytes,
        "garbage_bytes": info.garbage_bytes,
        "limits": limits_json(&info.limits),
        "sessions": info.sessions,
        "writers": info.writers,
        "readers": info.readers,
        "evicted": info.evicted,
        "free_bytes": info.free_bytes,
    })
}

/// Limits; null means no limit.
pub fn limits_json(limits: &Limits) -> Value {
    let count = |value: u64| (value > 0).then_some(value);
    let seconds = |value: std::time::Duration| (!value.is_zero()).then_some(value.as_secs_f64());
    json!({
        "max_bytes": count(limits.max_bytes),
        "max_entries": count(limits.max_entries),
        "max_entry_bytes": count(limits.max_entry_bytes),
        "min_free_bytes": count(limits.min_free_bytes),
        "max_age": seconds(limits.max_age),
        "max_idle": seconds(limits.max_idle),
        "low_mark": limits.low_mark,
    })
}

fn info_text(info: &Info) -> String {
    let limits = &info.limits;
    let of = |used: String, limit: u64, shown: String| if limit == 0 { used } else { format!("{used} of {shown}") };
    let bytes = of(show_bytes(info.bytes), limits.max_bytes, show_bytes(limits.max_bytes));
    let entries = of(info.entries.to_string(), limits.max_entries, limits.max_entries.to_string());
    let mut text = lines(&[
        ("cache", format!("{:016x}", info.id)),
        ("namespace", keys::shown(info.namespace.as_bytes())),
        ("entries", entries),
        ("bytes", format!("{bytes} ({} bytes)", info.bytes)),
        ("reserved", show_bytes(info.reserved_bytes)),
        ("garbage", show_bytes(info.garbage_bytes)),
        ("sessions", info.sessions.to_string()),
        ("writers", info.writers.to_string()),
        ("readers", info.readers.to_string()),
        ("evicted", info.evicted.to_string()),
        ("disk free", show_bytes(info.free_bytes)),
    ]);
    for (name, limit) in [("largest entry", limits.max_entry_bytes), ("keep free", limits.min_free_bytes)] {
        if limit > 0 {
            text += &lines(&[(name, show_bytes(limit))]);
        }
    }
    for (name, limit) in [("max age", limits.max_age), ("max idle", limits.max_idle)] {
        if !limit.is_zero() {
            text += &lines(&[(name, show_duration(limit))]);
        }
    }
    text
}

pub fn entry_json(entry: &Stat) -> Value {
    json!({
        "key": keys::json(&entry.key),
        "size": entry.size,
        "fence": entry.fence,
        "digest": keys::hex(&entry.digest),
        "created": epoch_seconds(entry.created),
        "last_used": entry.last_used.map(epoch_seconds),
        "expires": entry.expires.map(epoch_seconds),
        "pinned": entry.pinned,
        "content_type": entry.content_type,
        "meta": entry.user,
    })
}

fn entry_text(entry: &Stat) -> String {
    let since = |time| format!("{} ({} ago)", show_time(time), show_duration(ago(time)));
    let mut text = lines(&[
        ("key", keys::shown(&entry.key)),
        ("size", format!("{} ({} bytes)", show_bytes(entry.size), entry.size)),
        ("fence", entry.fence.to_string()),
        ("digest", keys::hex(&entry.digest)),
        ("created", since(entry.created)),
        ("last used", entry.last_used.map_or("never".to_owned(), since)),
        ("expires", entry.expires.map_or("never".to_owned(), show_time)),
        ("pinned", if entry.pinned { "yes" } else { "no" }.to_owned()),
    ]);
    if let Some(content_type) = &entry.content_type {
        text += &lines(&[("content type", keys::shown(content_type.as_bytes()))]);
    }
    for (name, value) in &entry.user {
        text += &format!("meta {} : {}\n", keys::shown(name.as_bytes()), keys::shown(value.as_bytes()));
    }
    text
}

fn lines(fields: &[(&str, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name:<13} : {value}\n")).collect()
}
