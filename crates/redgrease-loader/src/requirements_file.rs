//! Files that list requirements, in the format of pip.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// What a file lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The requirements, in order, without duplicates.
    pub requirements: Vec<String>,
    /// A line for each option that has no meaning on a server.
    pub skipped: Vec<String>,
}

/// A file that cannot be read: which one, and why.
pub type Unreadable = (PathBuf, io::Error);

/// Reads a file and those that it names with `-r`; `read` returns the text of a file.
///
/// # Errors
/// A file cannot be read.
pub fn read(path: &Path, read: &dyn Fn(&Path) -> io::Result<String>) -> Result<Listed, Unreadable> {
    let mut listed = Listed::default();
    add(path, read, &mut listed, &mut BTreeSet::new())?;
    Ok(listed)
}

fn add(
    path: &Path,
    read: &dyn Fn(&Path) -> io::Result<String>,
    listed: &mut Listed,
    seen: &mut BTreeSet<PathBuf>,
) -> Result<(), Unreadable> {
    if !seen.insert(path.to_owned()) {
        return Ok(());
    }
    let text = read(path).map_err(|error| (path.to_owned(), error))?.replace("\\\r\n", " ").replace("\\\n", " ");
    for line in text.lines().map(|line| without_comment(line).trim()).filter(|line| !line.is_empty()) {
        if let Some(part) = part(line) {
            let part = path.parent().unwrap_or(Path::new("")).join(part);
            add(&part, read, listed, seen)?;
        } else if line.starts_with('-') {
            listed.skipped.push(format!("{}: {line:?} is not for servers, skipped", path.display()));
        } else {
            let requirement = line.split_once(" --").map_or(line, |(requirement, _)| requirement).trim().to_owned();
            if !listed.requirements.contains(&requirement) {
                listed.requirements.push(requirement);
            }
        }
    }
    Ok(())
}

/// The file of a line `-r FILE`, `-rFILE`, `--requirement FILE` or `--requirement=FILE`.
fn part(line: &str) -> Option<&str> {
    let rest = match line.strip_prefix("--requirement") {
        Some(rest) if rest.starts_with(['=', ' ', '\t']) => &rest[1..],
        Some(_) => return None,
        None => line.strip_prefix("-r")?,
    };
    Some(rest.trim())
}

/// The line without a comment, which begins at its start or after a space.
fn without_comment(line: &str) -> &str {
    let begins = |at: usize| at == 0 || line[..at].ends_with(char::is_whitespace);
    let comment = line.match_indices('#').map(|(at, _)| at).find(|at| begins(*at));
    comment.map_or(line, |at| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(files: &[(&str, &str)], path: &str) -> Result<Listed, Unreadable> {
        read(Path::new(path), &|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    #[test]
    fn lines_comments_and_options() {
        let text = "# first\nrequests>=2 # here\n\nnumpy \\\n  <3\nrequests>=2\n--index-url https://x\nb @ https://x/b#egg=b\n\
                    c==1 --hash=sha256:0\n";
        let listed = read_of(&[("/a/r.txt", text)], "/a/r.txt").unwrap();
        assert_eq!(listed.requirements, ["requests>=2", "numpy    <3", "b @ https://x/b#egg=b", "c==1"]);
        assert_eq!(listed.skipped, ["/a/r.txt: \"--index-url https://x\" is not for servers, skipped"]);
    }

    #[test]
    fn files_can_be_made_of_others() {
        let files = [
            ("/a/r.txt", "-r base.txt\nx\n--requirement=b/more.txt"),
            ("/a/base.txt", "y\n-r r.txt"),
            ("/a/b/more.txt", "z"),
        ];
        let listed = read_of(&files, "/a/r.txt").unwrap();
        assert_eq!(listed.requirements, ["y", "x", "z"]);
    }

    #[test]
    fn a_missing_part_is_named() {
        let (path, error) = read_of(&[("/a/r.txt", "-r no.txt")], "/a/r.txt").unwrap_err();
        assert_eq!((path, error.kind()), (PathBuf::from("/a/no.txt"), io::ErrorKind::NotFound));
    }
}
