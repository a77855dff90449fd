//! The user of the operating system that workers run as (`WorkerUser`).

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

/// A user of the operating system.
#[derive(Debug, Clone)]
pub struct OsUser {
    uid: u32,
    gid: u32,
    home: PathBuf,
}

impl OsUser {
    /// Finds a user by its name or number; `None` if that is empty, or the user of this process.
    ///
    /// # Errors
    /// There is no such user, or this process may not start processes of others.
    pub fn find(name: &str) -> Result<Option<OsUser>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = match name.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(name),
        };
        let user = found
            .map_err(|error| format!("load argument 'WorkerUser': the user '{name}' cannot be looked up: {error}"))?
            .ok_or_else(|| format!("load argument 'WorkerUser': there is no user '{name}' on this machine"))?;
        if user.uid == Uid::effective() {
            return Ok(None);
        }
        if !Uid::effective().is_root() {
            return Err(format!(
                "load argument 'WorkerUser': only a server that runs as root can start workers as '{name}'"
            ));
        }
        Ok(Some(OsUser { uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir }))
    }

    /// Makes a command of ours run as this user, without the server's groups: it changes to it before it does anything else. The
    /// kernel's interface for that would be used between fork and exec, where another environment cannot be passed on
    /// reliably (see `redgrease_ffi::environment`).
    pub fn apply(&self, command: &mut Command) {
        command.args(["--user", &format!("{}:{}", self.uid, self.gid)]).env("HOME", &self.home);
    }

    /// Makes a file or a directory belong to this user.
    pub fn own(&self, path: &Path) -> std::io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
    }

    /// Makes a directory and all in it belong to this user.
    pub fn own_all(&self, path: &Path) -> std::io::Result<()> {
        self.own(path)?;
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path)? {
                self.own_all(&entry?.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_an_error_that_names_it() {
        assert!(OsUser::find("").unwrap().is_none());
        let error = OsUser::find("no-such-user").unwrap_err();
        assert!(error.ends_with("there is no user 'no-such-user' on this machine"), "{error}");
    }

    #[test]
    fn the_own_user_needs_no_change() {
        assert!(OsUser::find(&Uid::effective().to_string()).unwrap().is_none());
    }
}
