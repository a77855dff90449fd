//! Where workers may change files.

use redgrease_engine::Config;

/// Places for temporary files, shared memory and terminals, and devices without effects.
const ALWAYS: [&str; 11] = [
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// The paths, separated by colons; `None` if workers are not confined.
///
/// # Errors
/// A path of the configuration is not an existing directory with an absolute path.
pub fn writable_paths(config: &Config) -> Result<Option<String>, String> {
    let named: Vec<&str> = config.worker_writable.split(':').filter(|path| !path.is_empty()).collect();
    if let Some(wrong) = named.iter().find(|path| !path.starts_with('/') || !std::path::Path::new(path).is_dir()) {
        return Err(format!(
            "load argument 'WorkerWritable' wants absolute paths of existing directories, separated by colons, got '{wrong}'"
        ));
    }
    if !config.isolation {
        return Ok(None);
    }
    let temporary = std::env::var("TMPDIR").ok().filter(|path| path.starts_with('/') && !path.contains(':'));
    let paths = ALWAYS.into_iter().chain(temporary.as_deref()).chain(named);
    Ok(Some(paths.collect::<Vec<_>>().join(":")))
}

#[cfg(test)]
mod tests {
    use redgrease_engine::Machine;

    use super::*;

    #[test]
    fn only_existing_directories_are_taken() {
        let config = |args: &[&[u8]]| Config::parse(args, Machine { cores: 1, memory_bytes: 0 }).unwrap();
        let paths = writable_paths(&config(&[b"WorkerWritable", b"/usr:/etc"])).unwrap().unwrap();
        assert!(paths.starts_with("/tmp:") && paths.ends_with(":/usr:/etc"), "{paths}");
        assert_eq!(writable_paths(&config(&[b"WorkerIsolation", b"0"])), Ok(None));
        for wrong in [b"etc".as_slice(), b"/usr:/no/such/directory"] {
            assert!(writable_paths(&config(&[b"WorkerWritable", wrong])).is_err());
        }
    }
}
