//! Files and directories: what was given, what is in it, and when a file was changed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::catalog::{Found, Stamp};
use crate::error::{Class, Error};
use crate::patterns::{Kind, Patterns};

/// A file or directory that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its absolute path. That of its directory has no symbolic links; the last part may be one, and stays as it is when
    /// that link changes.
    pub path: PathBuf,
    /// What it is.
    pub extent: Extent,
}

/// What belongs to a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A file, whatever its name.
    File,
    /// The files of a directory.
    Directory,
    /// The files of a directory and those below.
    Tree,
}

/// What is in a directory.
#[derive(Debug, Default)]
pub struct Scan {
    /// Scripts and files with requirements.
    pub found: Vec<Found>,
    /// The directories that were looked into.
    pub directories: Vec<PathBuf>,
    /// What could not be read.
    pub unreadable: Vec<String>,
}

impl Root {
    /// A file or directory by its path.
    ///
    /// # Errors
    /// There is no such file or directory.
    pub fn new(path: &Path, recursive: bool) -> Result<Self, Error> {
        let metadata = std::fs::metadata(path).map_err(|error| missing(path, &error))?;
        if !metadata.is_dir() && !metadata.is_file() {
            let what = format!("{}: this is no regular file", path.display());
            return Err(Error::new(Class::Path, what, "name files and directories, not pipes or devices"));
        }
        let extent = match (metadata.is_dir(), recursive) {
            (true, true) => Extent::Tree,
            (true, false) => Extent::Directory,
            (false, _) => Extent::File,
        };
        let absolute = match (extent, path.file_name()) {
            // A link to a file may be replaced by one to another file.
            (Extent::File, Some(name)) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                parent.unwrap_or(Path::new(".")).canonicalize().map(|parent| parent.join(name))
            }
            _ => path.canonicalize(),
        };
        Ok(Self { path: absolute.map_err(|error| missing(path, &error))?, extent })
    }

    /// The path of something below this root, relative to it; `None` if it does not belong to it.
    pub fn below<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        match self.extent {
            Extent::File => (path == self.path).then(|| path.file_name().map(Path::new)).flatten(),
            Extent::Directory => path.strip_prefix(&self.path).ok().filter(|below| below.components().count() <= 1),
            Extent::Tree => path.strip_prefix(&self.path).ok(),
        }
    }

    /// What a file of this root is; `None`: not to be loaded.
    pub fn kind(&self, path: &Path, patterns: &Patterns) -> Option<Kind> {
        let below = self.below(path)?;
        match self.extent {
            // It was named itself, so it is a script if it is nothing else.
            Extent::File => Some(patterns.kind_of_given(below).unwrap_or(Kind::Script)),
            _ => patterns.kind(below),
        }
    }

    /// Looks at everything that belongs to this root.
    pub fn scan(&self, patterns: &Patterns) -> Scan {
        let mut scan = Scan::default();
        if self.extent == Extent::File {
            let kind = self.kind(&self.path, patterns);
            scan.found.extend(kind.and_then(|kind| look(&self.path, kind)));
            return scan;
        }
        let depth = if self.extent == Extent::Tree { usize::MAX } else { 1 };
        let walk = WalkDir::new(&self.path).max_depth(depth).sort_by_file_name().into_iter();
        let is_wanted = |path: &Path| self.below(path).is_some_and(|below| !patterns.is_ignored(below));
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || is_wanted(entry.path())) {
            let entry = match entry {
                Ok(entry) => entry,
                // It went away in the meantime.
                Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => continue,
                Err(error) => {
                    scan.unreadable.push(error.to_string());
                    continue;
                }
            };
            if entry.file_type().is_dir() {
                if entry.depth() < depth {
                    scan.directories.push(entry.into_path());
                }
            } else if let Some(found) = self.kind(entry.path(), patterns).and_then(|kind| look(entry.path(), kind)) {
                scan.found.push(found);
            }
        }
        scan
    }
}

/// A regular file as it is now; `None` if there is none.
pub fn look(path: &Path, kind: Kind) -> Option<Found> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let stamp = Stamp {
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        size: metadata.len(),
        inode: (metadata.dev(), metadata.ino()),
    };
    Some(Found { path: path.to_owned(), kind, stamp })
}

fn missing(path: &Path, error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or directory".to_owned(),
        _ => error.to_string(),
    };
    Error::new(Class::Path, format!("{}: {reason}", path.display()), "name scripts, or directories with scripts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patterns::PatternTexts;

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in ["b.py", "a.py", "_c.py", "d.txt", "requirements.txt", "sub/e.py", ".venv/f.py", "__pycache__/g.py"]
        {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        directory
    }

    fn names(root: &Root) -> Vec<String> {
        let scan = root.scan(&Patterns::new(&PatternTexts::default()).unwrap());
        assert!(scan.unreadable.is_empty());
        let name = |found: &Found| found.path.strip_prefix(&root.path).unwrap().display().to_string();
        scan.found.iter().map(name).collect()
    }

    #[test]
    fn a_directory_is_scanned_in_order_and_without_what_is_ignored() {
        let directory = tree();
        assert_eq!(names(&Root::new(directory.path(), false).unwrap()), ["a.py", "b.py", "requirements.txt"]);
        assert_eq!(
            names(&Root::new(directory.path(), true).unwrap()),
            ["a.py", "b.py", "requirements.txt", "sub/e.py"]
        );
    }

    #[test]
    fn a_file_that_was_named_is_a_script_whatever_its_name() {
        let directory = tree();
        let patterns = Patterns::new(&PatternTexts::default()).unwrap();
        for (name, kind) in [("_c.py", Kind::Script), ("d.txt", Kind::Script), ("requirements.txt", Kind::Requirements)]
        {
            let root = Root::new(&directory.path().join(name), false).unwrap();
            assert_eq!(root.scan(&patterns).found[0].kind, kind, "{name}");
        }
    }

    #[test]
    fn paths_are_absolute_and_the_last_link_of_a_file_stays() {
        let directory = tree();
        let real = directory.path().canonicalize().unwrap();
        std::os::unix::fs::symlink("a.py", real.join("link.py")).unwrap();
        std::os::unix::fs::symlink(&real, real.join("dir")).unwrap();
        let root = Root::new(&real.join("dir/./dir/link.py"), false);
        assert_eq!(root.unwrap().path, real.join("link.py"));
        assert_eq!(Root::new(&real.join("dir"), false).unwrap().path, real);
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let error = Root::new(Path::new("/no/such.py"), false).unwrap_err();
        assert_eq!(
            (error.class, error.what.as_str()),
            (Class::Path, "/no/such.py: there is no such file or directory")
        );
        let error = Root::new(Path::new("/dev/null"), false).unwrap_err();
        assert_eq!((error.class, error.what.as_str()), (Class::Path, "/dev/null: this is no regular file"));
    }
}
