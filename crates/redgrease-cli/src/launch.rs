//! Starting a server and waiting until it answers.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use redis::{Connection, ProtocolVersion};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::args::Serve;
use crate::connection::ConnectionOptions;
use crate::detach::{self, Life};
use crate::misuse::Misuse;
use crate::places::{self, Python};
use crate::process::Process;
use crate::records::{self, Record, Records};
use crate::tail::last_lines;

const POLL: Duration = Duration::from_millis(10);
const LINES_SHOWN: usize = 20;
const LOCK_WAIT: Duration = Duration::from_secs(2);
const DEFAULT_PORT: u16 = 6379;

/// Everything that a start needs, checked before anything is started.
#[derive(Clone)]
pub struct Plan {
    port: u16,
    node: Option<Node>,
    server: PathBuf,
    module: PathBuf,
    python: Python,
    settings: Vec<(String, String)>,
    data: Option<PathBuf>,
    server_args: Vec<OsString>,
    timeout: Duration,
}

/// What makes a server a node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Port of the first node, which names the cluster.
    pub cluster: u16,
    /// Port of the connections between nodes.
    pub bus: u16,
}

/// A server that answers.
pub struct Running {
    pub child: Child,
    pub record: Record,
    /// The folder of its record.
    pub folder: PathBuf,
    /// Its name and version, if available.
    pub version: String,
}

impl Plan {
    /// Finds all parts of one server; the error says what is missing and how to get it.
    pub fn new(args: Serve, records: &Records) -> Result<Self> {
        let port = args.port.unwrap_or(DEFAULT_PORT);
        let parts = Self::parts(args)?;
        Self { port: free_port(port, records)?, ..parts }.with_folder()
    }

    /// The same for the nodes of a cluster, one for each pair of ports.
    pub fn nodes(args: Serve, ports: &[(u16, Node)]) -> Result<Vec<Self>> {
        let parts = Self::parts(args)?;
        ports
            .iter()
            .map(|&(port, node)| {
                let data = parts.data.as_ref().map(|folder| folder.join(port.to_string()));
                Self { port, node: Some(node), data, ..parts.clone() }.with_folder()
            })
            .collect()
    }

    fn parts(args: Serve) -> Result<Self> {
        refuse_ours(&args.server_args)?;
        let python = Python::find(args.python.as_deref())?;
        Ok(Self {
            port: 0,
            node: None,
            server: places::server_binary(args.server_binary.as_deref(), &python)?,
            module: places::module(args.module.as_deref(), &python)?,
            python,
            settings: args.settings,
            data: args.dir,
            server_args: args.server_args,
            timeout: args.timeout,
        })
    }

    fn with_folder(mut self) -> Result<Self> {
        self.data = self.data.map(|folder| make_data_folder(&folder)).transpose()?;
        Ok(self)
    }

    /// The ports for clients and for other nodes; `None` if it is not a node of a cluster.
    pub fn ports_of_node(&self) -> Option<(u16, u16)> {
        self.node.map(|node| (self.port, node.bus))
    }

    /// A warning about something that does not stop the server.
    pub fn warning(&self) -> Option<String> {
        self.python.redgrease.is_none().then(|| {
            let python = self.python.executable.display();
            format!(
                "{python} (Python {}) has no package redgrease, so functions cannot run: install it there, or name another \
                 with --python PATH",
                self.python.version
            )
        })
    }

    /// Starts the server and returns when it answers. `stop` is polled while waiting; true aborts.
    pub fn start(&self, life: Life, records: &Records, mut stop: impl FnMut() -> bool) -> Result<Running> {
        let folder = records.new_server(self.port)?;
        let log = self.data.as_deref().unwrap_or(&folder).join("server.log");
        let started = self.spawn(life, &folder, &log, records).and_then(|(mut child, record)| {
            let told = self.wait_ready(&mut child, &record, &mut stop);
            if told.is_err() {
                let _already_gone = child.kill();
                let _reaped = child.wait();
            }
            let version = told?;
            records::write(&folder, &record)?;
            Ok(Running { child, record, folder: folder.clone(), version })
        });
        if started.is_err() {
            let _leftover = fs::remove_dir_all(&folder);
        }
        started
    }

    fn spawn(&self, life: Life, folder: &Path, log: &Path, records: &Records) -> Result<(Child, Record)> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("the log {} cannot be written", log.display()))?;
        if let Some(data) = &self.data {
            lock(&output, log, data, records)?;
        }
        let log_start = output.metadata()?.len();
        let child = detach::command(&self.server, &self.command_line(folder), life)?
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .spawn()
            .context("the server cannot be started")?;
        let record = Record {
            port: self.port,
            process: Process::now(child.id()),
            memory_only: self.data.is_none(),
            cluster: self.node.map(|node| node.cluster),
            log: std::path::absolute(log)?,
            log_start,
        };
        Ok((child, record))
    }

    /// The module comes first, because the server takes everything up to the next `--name` for the module's arguments.
    fn command_line(&self, folder: &Path) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![
            "--loadmodule".into(),
            self.module.clone().into(),
            "Python".into(),
            self.python.executable.clone().into(),
        ];
        for (key, value) in &self.settings {
            line.extend([key.into(), value.into()]);
        }
        let appendonly = if self.data.is_some() { "yes" } else { "no" };
        let port = self.port.to_string();
        for option in [
            &["--port", &port][..],
            &["--bind", "127.0.0.1", "-::1"],
            &["--daemonize", "no"],
            &["--save", ""],
            &["--appendonly", appendonly],
        ] {
            line.extend(option.iter().map(OsString::from));
        }
        if let Some(node) = self.node {
            let bus = node.bus.to_string();
            for option in
                [["--cluster-enabled", "yes"], ["--cluster-config-file", "nodes.conf"], ["--cluster-port", &bus]]
            {
                line.extend(option.iter().map(OsString::from));
            }
        }
        line.extend(["--dir".into(), self.data.as_deref().unwrap_or(folder).into()]);
        line.extend(self.server_args.iter().cloned());
        line
    }

    /// Waits for an answer, and returns the server's name and version. While a server loads its data there is no deadline:
    /// it answers, and can be stopped.
    fn wait_ready(&self, child: &mut Child, record: &Record, stop: &mut impl FnMut() -> bool) -> Result<String> {
        let mut deadline = Instant::now() + self.timeout;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended at once ({status}). Its last output:\n{}{}", words(record), self.fix(record));
            }
            match probe(self.port) {
                Answer::Ready(told) if told.pid.is_none_or(|pid| pid == child.id()) => return Ok(told.version),
                Answer::Ready(_) => bail!("another server took port {} in the meantime: try another --port", self.port),
                Answer::Loading => deadline = Instant::now() + self.timeout,
                Answer::Nothing => {}
            }
            if stop() {
                bail!("stopped before the server was ready");
            }
            if Instant::now() > deadline {
                let limit = self.timeout.as_secs_f64();
                bail!("the server did not answer within {limit} s (--timeout). Its last output:\n{}", words(record));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Fixes for the most common reasons why a server does not start.
    fn fix(&self, record: &Record) -> String {
        let words = words(record);
        if words.contains("Address already in use") {
            return format!("Port {} is taken: choose another with --port", self.port);
        }
        if words.contains("FATAL CONFIG FILE ERROR") || words.contains("Bad directive") {
            return "Look at what stands after -- and --set".to_owned();
        }
        if words.contains("Can't load module") || words.contains("failed to load") {
            return format!(
                "The module {} does not load in {}: it needs Redis 7.0 or newer, or Valkey 7.2 or newer, and its load \
                 arguments (--set) must be right; name other parts with --module and --server-binary",
                self.module.display(),
                self.server.display()
            );
        }
        format!("The whole command was: {} {}", self.server.display(), shown(&self.command_line(Path::new("."))))
    }
}

fn shown(line: &[OsString]) -> String {
    line.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ")
}

/// The last lines of the server's log.
fn words(record: &Record) -> String {
    let text = last_lines(&record.log, record.log_start, LINES_SHOWN).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(|line| format!("  {line}\n")).collect()
}

/// Options of the server that would conflict with ours.
fn refuse_ours(server_args: &[OsString]) -> Result<()> {
    let ours = [("--port", "--port before the --"), ("--daemonize", "--background"), ("--dir", "--dir before the --")];
    for (option, better) in ours {
        if server_args.iter().any(|argument| argument.eq_ignore_ascii_case(option)) {
            return Err(Misuse(format!("{option} after -- is not for the server: use {better}")).into());
        }
    }
    Ok(())
}

/// The port, if it is free; 0 selects a free one.
pub fn free_port(asked: u16, records: &Records) -> Result<u16> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, asked)) {
        Ok(listener) => Ok(listener.local_addr()?.port()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let owner = match records.running(Some(asked)) {
                Ok(_) => format!(
                    "by a server that `redgrease serve` started: stop it with `redgrease stop --port {asked}`, or"
                ),
                Err(_) => "by another program:".to_owned(),
            };
            Err(anyhow!("port {asked} is in use {owner} choose another with --port (0 selects a free one)"))
        }
        Err(error) => Err(anyhow!("port {asked} cannot be used: {error}; choose another with --port")),
    }
}

/// Locks a data folder by the log in it, which is the output of the server: the lock lasts as long as the server.
fn lock(output: &File, log: &Path, data: &Path, records: &Records) -> Result<()> {
    let deadline = Instant::now() + LOCK_WAIT;
    // Workers of a server that was killed end a moment later.
    while let Err(error) = flock(output, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK {
            return Ok(()); // a file system without locks
        }
        if Instant::now() > deadline {
            let stop = records.writer_of(log).map_or_else(
                || "stop the server that uses it".to_owned(),
                |record| format!("stop the server on port {} with `redgrease stop --port {0}`", record.port),
            );
            bail!("--dir {} is used by another server: {stop}, or name another directory", data.display());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn make_data_folder(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("--dir {} cannot be made", folder.display()))?;
    Ok(folder.canonicalize()?)
}

enum Answer {
    Nothing,
    Loading,
    Ready(Told),
}

/// Name and version from a server's INFO; none from a server with a password.
#[derive(Debug, Default, PartialEq)]
struct Told {
    pid: Option<u32>,
    version: String,
}

fn probe(port: u16) -> Answer {
    let connection = ConnectionOptions::local(port)
        .target()
        .and_then(|target| target.connect(ProtocolVersion::RESP2, Some(Duration::from_secs(2))));
    let Ok(mut connection) = connection else { return Answer::Nothing };
    match redis::cmd("PING").query::<redis::Value>(&mut connection) {
        Ok(_) => Answer::Ready(ask(&mut connection)),
        Err(error) => match error.code() {
            Some("LOADING" | "MASTERDOWN" | "BUSY") => Answer::Loading,
            Some(_) => Answer::Ready(Told::default()),
            None => Answer::Nothing,
        },
    }
}

fn ask(connection: &mut Connection) -> Told {
    let info = redis::cmd("INFO").arg("server").query::<String>(connection).unwrap_or_default();
    told(&info)
}

fn told(info: &str) -> Told {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let version = match (field("valkey_version"), field("redis_version")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, Some(version)) => format!("Redis {version}"),
        (None, None) => String::new(),
    };
    Told { pid: field("process_id").and_then(|pid| pid.parse().ok()), version }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(data: Option<&str>) -> Plan {
        Plan {
            port: 7000,
            node: None,
            server: "server".into(),
            module: "/m.so".into(),
            python: Python::bare("/p"),
            settings: vec![("MaxWorkers".to_owned(), "4".to_owned())],
            data: data.map(PathBuf::from),
            server_args: vec!["--maxmemory".into(), "1gb".into()],
            timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_server_without_a_folder_keeps_nothing_on_disk() {
        assert_eq!(
            shown(&plan(None).command_line(Path::new("/state"))).replace('"', ""),
            "--loadmodule /m.so Python /p MaxWorkers 4 --port 7000 --bind 127.0.0.1 -::1 --daemonize no --save  \
             --appendonly no --dir /state --maxmemory 1gb"
        );
    }

    #[test]
    fn a_server_with_a_folder_appends_to_a_file_there() {
        let line = shown(&plan(Some("/data")).command_line(Path::new("/state")));
        assert!(line.contains(r#""--appendonly" "yes" "--dir" "/data""#), "{line}");
    }

    #[test]
    fn a_node_of_a_cluster_is_told_so() {
        let node = Plan { node: Some(Node { cluster: 7000, bus: 17000 }), ..plan(None) };
        let line = shown(&node.command_line(Path::new("/state")));
        assert!(
            line.contains(r#""--cluster-enabled" "yes""#) && line.contains(r#""--cluster-port" "17000""#),
            "{line}"
        );
    }

    #[test]
    fn a_port_in_use_is_noticed_before_anything_is_started() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_folder, records) = Records::empty();
        let error = free_port(port, &records).unwrap_err().to_string();
        assert!(error.starts_with(&format!("port {port} is in use by another program: choose another")), "{error}");
        assert_ne!(free_port(0, &records).unwrap(), 0);
    }

    #[test]
    fn options_that_are_ours_are_refused_after_the_dashes() {
        let error = refuse_ours(&["--PORT".into(), "1".into()]).unwrap_err();
        assert!(error.is::<Misuse>() && error.to_string().contains("--port before the --"), "{error}");
        refuse_ours(&["--maxmemory".into(), "1gb".into()]).unwrap();
    }

    #[test]
    fn servers_tell_who_they_are() {
        let valkey =
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nprocess_id:42\r\n";
        assert_eq!(told(valkey), Told { pid: Some(42), version: "Valkey 9.1.2".to_owned() });
        assert_eq!(told("redis_version:7.0.15\r\n").version, "Redis 7.0.15");
        assert_eq!(told(""), Told::default());
    }
}
