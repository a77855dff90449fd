//! The files that were looked at, and what has to be done when they are looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::patterns::Kind;

/// Identifies the content of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Time of the last modification: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Length in bytes.
    pub size: u64,
    /// Device and number of the file.
    pub inode: (u64, u64),
}

/// A file as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its absolute path.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its content.
    pub stamp: Stamp,
}

/// What has to be done, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that do not exist any more.
    pub removed: Vec<(PathBuf, Kind)>,
    /// Files that are new or changed, requirements first.
    pub changed: Vec<Found>,
}

/// The state of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    kind: Kind,
    stamp: Stamp,
    /// The last attempt to load it failed.
    failed: bool,
}

/// The files that were looked at.
#[derive(Debug, Default)]
pub struct Catalog {
    files: BTreeMap<PathBuf, Known>,
}

impl Catalog {
    /// Compares what was found now with what is known of the files in `scope`.
    pub fn compare(&self, scope: impl Fn(&Path) -> bool, found: &[Found]) -> Changes {
        let present: BTreeSet<&Path> = found.iter().map(|found| found.path.as_path()).collect();
        let is_gone = |path: &Path| scope(path) && !present.contains(path);
        let removed =
            self.files.iter().filter(|(path, _)| is_gone(path)).map(|(path, known)| (path.clone(), known.kind));
        let is_new = |found: &&Found| self.files.get(&found.path).is_none_or(|known| known.stamp != found.stamp);
        let mut changed: Vec<Found> = found.iter().filter(is_new).cloned().collect();
        changed.sort_by_key(|found| found.kind);
        Changes { removed: removed.collect(), changed }
    }

    /// A file was loaded, or could not be.
    pub fn loaded(&mut self, found: &Found, failed: bool) {
        self.files.insert(found.path.clone(), Known { kind: found.kind, stamp: found.stamp, failed });
    }

    /// A file is gone.
    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// The files of a kind, in order.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = Found> {
        self.files.iter().filter(move |(_, known)| known.kind == kind).map(found)
    }

    /// The files that could not be loaded, in order.
    pub fn failed(&self) -> impl Iterator<Item = Found> {
        self.files.iter().filter(|(_, known)| known.failed).map(found)
    }
}

fn found((path, known): (&PathBuf, &Known)) -> Found {
    Found { path: path.clone(), kind: known.kind, stamp: known.stamp }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(name: &str, size: u64) -> Found {
        let kind = if name.ends_with("txt") { Kind::Requirements } else { Kind::Script };
        Found { path: name.into(), kind, stamp: Stamp { modified: (1, 0), size, inode: (1, 1) } }
    }

    fn catalog(files: &[Found]) -> Catalog {
        let mut catalog = Catalog::default();
        files.iter().for_each(|found| catalog.loaded(found, false));
        catalog
    }

    #[test]
    fn new_changed_and_removed_files() {
        let known =
            catalog(&[file("/a/same.py", 1), file("/a/old.py", 1), file("/a/gone.py", 1), file("/b/other.py", 1)]);
        let now = [file("/a/same.py", 1), file("/a/old.py", 2), file("/a/new.py", 1), file("/a/r.txt", 1)];
        let changes = known.compare(|path| path.starts_with("/a"), &now);
        assert_eq!(changes.removed, [("/a/gone.py".into(), Kind::Script)]);
        assert_eq!(changes.changed, [file("/a/r.txt", 1), file("/a/old.py", 2), file("/a/new.py", 1)]);
    }

    #[test]
    fn files_that_failed_are_known_until_they_are_loaded_or_gone() {
        let mut known = Catalog::default();
        known.loaded(&file("a.py", 1), true);
        known.loaded(&file("b.py", 1), true);
        known.loaded(&file("a.py", 2), false);
        assert_eq!(known.failed().collect::<Vec<_>>(), [file("b.py", 1)]);
        known.remove(Path::new("b.py"));
        assert_eq!((known.failed().count(), known.of_kind(Kind::Script).count()), (0, 1));
    }

    proptest! {
        #[test]
        fn after_the_changes_nothing_has_changed(
            before in proptest::collection::btree_map("[a-d]{1,2}", 0_u64..3, 0..8),
            now in proptest::collection::btree_map("[a-d]{1,2}", 0_u64..3, 0..8),
        ) {
            let files = |map: &BTreeMap<String, u64>| map.iter().map(|(name, size)| file(name, *size)).collect::<Vec<_>>();
            let mut known = catalog(&files(&before));
            let now = files(&now);
            let changes = known.compare(|_| true, &now);
            for (path, _) in &changes.removed {
                known.remove(path);
            }
            for found in &changes.changed {
                known.loaded(found, false);
            }
            prop_assert_eq!(known.compare(|_| true, &now), Changes::default());
            prop_assert_eq!(known.files.len(), now.len());
        }
    }
}
