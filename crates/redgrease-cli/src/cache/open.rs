//! Opening the cache of the command line, and iterating over it.

use anyhow::Result;
use redgrease_filecache::{Code, Cursor, Error, FileCache, Options, Stat};

use crate::output::say;

use super::args::{NAMESPACE_VARIABLE, Place};
use super::refusal::Refusal;

/// Number of entries per request.
const PAGE: usize = 1000;

impl Place {
    /// Opens the cache; creates it if it does not exist.
    pub fn open(&self) -> Result<FileCache> {
        let cache = FileCache::open(self.options())?;
        if !self.json {
            cache.warnings().iter().for_each(|warning| say(format_args!("redgrease: warning: {warning}")));
        }
        Ok(cache)
    }

    /// Opens an existing cache: a misspelt directory must not become a new one.
    pub fn open_existing(&self) -> Result<FileCache> {
        self.probe()?;
        self.open()
    }

    /// Opens an existing cache for reading only; needs no permission to write.
    pub fn open_to_look(&self) -> Result<FileCache> {
        let looking = self.probe()?;
        match self.open() {
            Err(error) if error.downcast_ref::<Error>().is_some_and(|error| error.code() == Code::Denied) => {
                looking.ok_or(error)
            }
            other => other,
        }
    }

    /// Opens the cache without changing anything; `None` if a directory that is not a cache may be adopted.
    fn probe(&self) -> Result<Option<FileCache>> {
        if !self.dir.is_dir() {
            let words = format!("there is no cache in {}: name its directory with --dir", self.dir.display());
            return Err(Refusal::new(Code::BadConfig, words).into());
        }
        if self.adopt {
            return Ok(None);
        }
        let mut options = self.options();
        options.read_only = true;
        Ok(Some(FileCache::open(options)?))
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new(&self.dir);
        options.url = self.url.clone().filter(|url| !url.is_empty());
        // An empty value in the environment means none; an empty argument is refused.
        let is_none = self.namespace.is_empty() && std::env::var_os(NAMESPACE_VARIABLE).is_some_and(|it| it.is_empty());
        if !is_none {
            options.namespace.clone_from(&self.namespace);
        }
        options.adopt = self.adopt;
        // Background maintenance is left to long-lived processes.
        options.maintenance = None;
        options
    }
}

/// Calls a function for each entry, in the order of the cache.
pub fn each_entry(cache: &FileCache, mut take: impl FnMut(Stat)) -> redgrease_filecache::Result<()> {
    let mut next = Some(Cursor::default());
    while let Some(cursor) = next {
        let (page, after) = cache.list(cursor, PAGE)?;
        page.into_iter().for_each(&mut take);
        next = after;
    }
    Ok(())
}
