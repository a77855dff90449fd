//! `redgrease cache ls`: the entries.

use std::cmp::Ordering;
use std::process::ExitCode;

use anyhow::Result;
use redgrease_filecache::Stat;

use super::args::{Ls, Sort};
use super::keys;
use super::open::each_entry;
use super::stat::entry_json;
use crate::output::print;
use crate::table::Table;
use crate::units::{ago, show_bytes, show_duration};

pub fn run(args: &Ls) -> Result<ExitCode> {
    let prefix = args.prefix.as_deref().map(|word| args.form.key(word)).transpose()?.unwrap_or_default();
    let cache = args.place.open_to_look()?;
    let mut entries = Vec::new();
    each_entry(&cache, |entry| {
        if entry.key.starts_with(&prefix) {
            entries.push(entry);
        }
    })?;
    arrange(&mut entries, args);
    print(&if args.place.json {
        entries.iter().map(|entry| format!("{}\n", entry_json(entry))).collect()
    } else if args.long {
        table(&entries)
    } else {
        entries.iter().map(|entry| format!("{}\n", keys::shown(&entry.key))).collect::<String>()
    })?;
    Ok(ExitCode::SUCCESS)
}

fn arrange(entries: &mut Vec<Stat>, args: &Ls) {
    entries.sort_by(|a, b| {
        let order = compare(a, b, args.sort);
        if args.reverse { order.reverse() } else { order }
    });
    entries.truncate(args.limit.unwrap_or(usize::MAX));
}

fn compare(a: &Stat, b: &Stat, sort: Sort) -> Ordering {
    match sort {
        Sort::Key => Ordering::Equal,
        Sort::Size => b.size.cmp(&a.size),
        Sort::Age => a.created.cmp(&b.created),
        Sort::Used => a.last_used.unwrap_or(a.created).cmp(&b.last_used.unwrap_or(b.created)),
    }
    .then_with(|| a.key.cmp(&b.key))
}

fn table(entries: &[Stat]) -> String {
    let mut table = Table::new(&["SIZE", "AGE", "USED", "EXPIRES", "FENCE", "KEY"], &[0, 1, 2, 3, 4]);
    for entry in entries {
        let left = |time: std::time::SystemTime| {
            show_duration(time.duration_since(std::time::SystemTime::now()).unwrap_or_default())
        };
        table.add(vec![
            show_bytes(entry.size),
            show_duration(ago(entry.created)),
            entry.last_used.map_or("-".to_owned(), |used| show_duration(ago(used))),
            if entry.pinned { "pinned".to_owned() } else { entry.expires.map_or("-".to_owned(), left) },
            entry.fence.to_string(),
            keys::shown(&entry.key),
        ]);
    }
    table.text()
}
