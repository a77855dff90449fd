//! `redgrease cache top`: periodic reports. A full-screen view on a terminal, a line per update elsewhere.

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::Result;
use redgrease_filecache::{FileCache, Info, Lock};
use serde_json::json;

use super::args::Top;
use super::locks;
use super::stat::info_json;
use crate::output::print;
use crate::signals::stop_signal;
use crate::terminal::bar;
use crate::units::{show_bytes, show_duration};

const LOCKS_SHOWN: usize = 15;

pub fn run(args: &Top) -> Result<ExitCode> {
    let cache = args.place.open_to_look()?;
    let stop = stop_signal()?;
    let is_picture = stdout().is_terminal() && !args.place.json;
    let mut before = None;
    for look in 1.. {
        let now = Look::take(&cache)?;
        print(&if args.place.json {
            now.json(before.as_ref())
        } else if is_picture {
            now.picture(before.as_ref())
        } else {
            now.line(before.as_ref())
        })?;
        before = Some(now);
        if args.count.is_some_and(|count| look >= count)
            || stop.recv_timeout(args.interval) != Err(RecvTimeoutError::Timeout)
        {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Changes per second.
struct Growth {
    entries: f64,
    bytes: f64,
    evicted: f64,
}

struct Look {
    at: Instant,
    info: Info,
    locks: Vec<Lock>,
}

impl Look {
    fn take(cache: &FileCache) -> Result<Self> {
        Ok(Self { info: cache.info()?, locks: cache.locks()?, at: Instant::now() })
    }

    /// Changes since an earlier sample.
    fn growth(&self, before: Option<&Look>) -> Option<Growth> {
        let before = before?;
        let seconds = (self.at - before.at).max(Duration::from_micros(1)).as_secs_f64();
        let rate = |now: u64, then: u64| (now as f64 - then as f64) / seconds;
        Some(Growth {
            entries: rate(self.info.entries, before.info.entries),
            bytes: rate(self.info.bytes, before.info.bytes),
            // A rebuilt index counts from 0.
            evicted: rate(self.info.evicted, before.info.evicted).max(0.0),
        })
    }

    fn json(&self, before: Option<&Look>) -> String {
        let mut told = info_json(&self.info);
        let growth = self.growth(before);
        let rate = |of: fn(&Growth) -> f64| json!(growth.as_ref().map(of));
        told["entries_per_second"] = rate(|growth| growth.entries);
        told["bytes_per_second"] = rate(|growth| growth.bytes);
        told["evicted_per_second"] = rate(|growth| growth.evicted);
        format!("{told}\n")
    }

    fn line(&self, before: Option<&Look>) -> String {
        let Info { entries, bytes, writers, readers, sessions, .. } = self.info;
        let growth = self.growth(before).map_or(String::new(), |Growth { entries, bytes, evicted }| {
            format!(" entries/s={entries:+.1} bytes/s={bytes:+.0} evicted/s={evicted:.1}")
        });
        let cap = self.info.limits.max_bytes;
        let cap = if cap == 0 { String::new() } else { format!(" cap={cap}") };
        format!(
            "entries={entries} bytes={bytes}{cap} sessions={sessions} writers={writers} readers={readers}{growth}\n"
        )
    }

    /// The screen, drawn from its top left corner over the previous one.
    fn picture(&self, before: Option<&Look>) -> String {
        let info = &self.info;
        let of = |used: u64, limit: u64, show: fn(u64) -> String| match limit {
            0 => show(used),
            limit => format!("{} of {} {}", show(used), show(limit), bar(used as f64 / limit as f64)),
        };
        let (mut entries_rate, mut bytes_rate, mut evicted_rate) = (String::new(), String::new(), String::new());
        if let Some(Growth { entries, bytes, evicted }) = self.growth(before) {
            let sign = if bytes < 0.0 { '-' } else { '+' };
            entries_rate = format!("  {entries:+.1}/s");
            bytes_rate = format!("  {sign}{}/s", show_bytes(bytes.abs() as u64));
            evicted_rate = format!("  {evicted:.1}/s");
        }
        let mut lines = vec![
            format!("cache     {:016x}  {}", info.id, super::keys::shown(info.namespace.as_bytes())),
            format!("entries   {}{entries_rate}", of(info.entries, info.limits.max_entries, |count| count.to_string())),
            format!("bytes     {}{bytes_rate}", of(info.bytes, info.limits.max_bytes, show_bytes)),
            format!("evicted   {}{evicted_rate}", info.evicted),
            format!("reserved  {}   garbage {}", show_bytes(info.reserved_bytes), show_bytes(info.garbage_bytes)),
            format!("sessions  {}   writers {}   readers {}", info.sessions, info.writers, info.readers),
            String::new(),
        ];
        lines.extend(locks::table(&self.locks[..self.locks.len().min(LOCKS_SHOWN)]).lines().map(str::to_owned));
        if self.locks.len() > LOCKS_SHOWN {
            lines.push(format!("... and {} more", self.locks.len() - LOCKS_SHOWN));
        }
        let oldest = self.locks.iter().filter_map(|lock| lock.age).max();
        lines.extend(oldest.map(|age| format!("oldest lock: {}", show_duration(age))));
        format!("\x1b[H{}\x1b[J", lines.iter().map(|line| format!("{line}\x1b[K\n")).collect::<String>())
    }
}
