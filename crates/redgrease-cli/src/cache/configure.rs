//! `redgrease cache configure`: the limits, which all users of the cache share.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use redgrease_filecache::Limits;

use super::args::{Configure, NewLimits};
use super::stat::limits_json;
use crate::output::print;
use crate::table::Table;
use crate::units::show_bytes;

pub fn run(args: &Configure) -> Result<ExitCode> {
    let limits = if args.limits == NewLimits::default() {
        args.place.open_to_look()?.info()?.limits
    } else {
        let cache = args.place.open_existing()?;
        cache.configure(&args.limits.instead_of(&cache.info()?.limits))?;
        cache.info()?.limits
    };
    print(&if args.place.json { format!("{}\n", limits_json(&limits)) } else { table(&limits) })?;
    Ok(ExitCode::SUCCESS)
}

impl NewLimits {
    /// The old limits, with the given ones replaced.
    fn instead_of(&self, old: &Limits) -> Limits {
        Limits {
            max_bytes: self.max_bytes.unwrap_or(old.max_bytes),
            max_entries: self.max_entries.unwrap_or(old.max_entries),
            max_entry_bytes: self.max_entry_bytes.unwrap_or(old.max_entry_bytes),
            min_free_bytes: self.min_free_bytes.unwrap_or(old.min_free_bytes),
            max_age: self.max_age.unwrap_or(old.max_age),
            max_idle: self.max_idle.unwrap_or(old.max_idle),
            low_mark: self.low_mark.unwrap_or(old.low_mark),
        }
    }
}

/// All limits, including unlimited ones.
fn table(limits: &Limits) -> String {
    let or_none = |is_none: bool, shown: String| if is_none { "none".to_owned() } else { shown };
    let size = |bytes: u64| or_none(bytes == 0, format!("{bytes} ({})", show_bytes(bytes)));
    let time = |time: Duration| or_none(time.is_zero(), format!("{} s", time.as_secs_f64()));
    let mut table = Table::new(&["LIMIT", "VALUE"], &[]);
    for (name, value) in [
        ("max_bytes", size(limits.max_bytes)),
        ("max_entries", or_none(limits.max_entries == 0, limits.max_entries.to_string())),
        ("max_entry_bytes", size(limits.max_entry_bytes)),
        ("min_free_bytes", size(limits.min_free_bytes)),
        ("max_age", time(limits.max_age)),
        ("max_idle", time(limits.max_idle)),
        ("low_mark", limits.low_mark.to_string()),
    ] {
        table.add(vec![name.to_owned(), value]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_not_given_stay_and_zero_takes_one_away() {
        let old = Limits { max_entries: 7, max_idle: Duration::from_secs(60), ..Limits::max_bytes(1000) };
        assert_eq!(NewLimits::default().instead_of(&old), old);
        let new = NewLimits { max_bytes: Some(0), max_age: Some(Duration::from_secs(1)), ..NewLimits::default() };
        assert_eq!(new.instead_of(&old), Limits { max_bytes: 0, max_age: Duration::from_secs(1), ..old });
    }

    #[test]
    fn all_limits_are_in_the_table_exactly_and_as_people_read_them() {
        let limits = Limits { max_idle: Duration::from_secs(5400), ..Limits::max_bytes(1_234_567) };
        let expected = "\
LIMIT            VALUE
max_bytes        1234567 (1.2 MB)
max_entries      none
max_entry_bytes  none
min_free_bytes   none
max_age          none
max_idle         5400 s
low_mark         0.9
";
        assert_eq!(table(&limits), expected);
    }
}
