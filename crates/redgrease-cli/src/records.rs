//! Records of the servers that `redgrease serve` started, for `stop` and `logs`.
//!
//! Each server has its own folder below the state folder, with `server.json` and, unless its data has a folder, the
//! log. A record stays until the port is served again, so that the log of a server that died can still be read.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use etcetera::base_strategy::{BaseStrategy, Xdg};
use serde_json::{Value, json};

use crate::misuse::Misuse;
use crate::process::Process;

/// Folders of dead servers are removed after this time.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
const RECORD: &str = "server.json";

/// A started server.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub port: u16,
    pub process: Process,
    pub memory_only: bool,
    /// Port of the first node of its cluster.
    pub cluster: Option<u16>,
    pub log: PathBuf,
    /// Offset of this server's first line in the log.
    pub log_start: u64,
}

impl Record {
    fn to_json(&self) -> Value {
        json!({
            "port": self.port,
            "pid": self.process.pid,
            "started": self.process.started,
            "memory_only": self.memory_only,
            "cluster": self.cluster,
            "log": self.log,
            "log_start": self.log_start,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            port: value["port"].as_u64()?.try_into().ok()?,
            process: Process { pid: value["pid"].as_u64()?.try_into().ok()?, started: value["started"].as_u64() },
            memory_only: value["memory_only"].as_bool()?,
            cluster: value["cluster"].as_u64().and_then(|port| port.try_into().ok()),
            log: value["log"].as_str()?.into(),
            log_start: value["log_start"].as_u64()?,
        })
    }

    /// The port that names the server, or the cluster that it is a node of.
    fn group(&self) -> u16 {
        self.cluster.unwrap_or(self.port)
    }

    /// Whether the server still runs.
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }
}

/// The state folder.
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Opens the state folder of this user, and creates it if necessary.
    pub fn open() -> Result<Self> {
        let folder = state_folder();
        let fix = || format!("{} cannot be used; set REDGREASE_STATE_DIR to your own folder", folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(fix)?;
        if fs::metadata(&folder).with_context(fix)?.uid() != rustix::process::geteuid().as_raw() {
            bail!("{} belongs to another user; set REDGREASE_STATE_DIR to your own folder", folder.display());
        }
        Ok(Self { folder })
    }

    /// Makes the folder of a server about to start, and removes old folders of ended ones.
    pub fn new_server(&self, port: u16) -> Result<PathBuf> {
        self.sweep(port);
        let folder = self.folder.join(format!("server-{port}-{}", std::process::id()));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(folder)
    }

    fn sweep(&self, port: u16) {
        for (folder, record) in self.all() {
            let old = fs::metadata(folder.join(RECORD))
                .and_then(|data| data.modified())
                .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > KEPT));
            if !record.is_alive() && (record.port == port || old) {
                let _swept = fs::remove_dir_all(folder);
            }
        }
    }

    fn all(&self) -> Vec<(PathBuf, Record)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<_> =
            entries.filter_map(|entry| read(&entry.path()).map(|record| (entry.path(), record))).collect();
        found.sort_by_key(|(_, record)| (record.process.started, record.process.pid));
        found
    }

    /// The running server on a port with the nodes of its cluster, or the only running server or cluster.
    pub fn running(&self, port: Option<u16>) -> Result<Vec<Record>> {
        let alive = self.all().into_iter().map(|(_, record)| record).filter(Record::is_alive).collect();
        let group = choose(port, alive)?;
        if group.is_empty() {
            let on = port.map_or(String::new(), |port| format!(" on port {port}"));
            bail!("no server that `redgrease serve` started is running{on}");
        }
        Ok(group)
    }

    /// The running server that writes this log.
    pub fn writer_of(&self, log: &Path) -> Option<Record> {
        self.all().into_iter().map(|(_, record)| record).find(|record| record.log == log && record.is_alive())
    }

    /// The running servers as above, or else the server or cluster that ended last.
    pub fn latest(&self, port: Option<u16>) -> Result<Vec<Record>> {
        let all: Vec<Record> = self.all().into_iter().map(|(_, record)| record).collect();
        let alive = choose(port, all.iter().filter(|record| record.is_alive()).cloned().collect())?;
        if !alive.is_empty() {
            return Ok(alive);
        }
        let last = all.iter().rev().find(|record| port.is_none_or(|port| record.port == port));
        let last = last.context("no log: no server was started by `redgrease serve` here")?.group();
        Ok(all.into_iter().filter(|record| record.group() == last).collect())
    }
}

/// Selects a server or the nodes of a cluster; an error lists the candidates if a port is needed.
fn choose(port: Option<u16>, alive: Vec<Record>) -> Result<Vec<Record>> {
    let meant = |record: &&Record| port.is_none_or(|port| record.port == port);
    let mut groups: Vec<u16> = alive.iter().filter(meant).map(Record::group).collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > 1 {
        let ports: Vec<String> = groups.iter().map(u16::to_string).collect();
        return Err(Misuse(format!("several servers are running, name one with --port: {}", ports.join(", "))).into());
    }
    let mut group: Vec<Record> = alive.into_iter().filter(|record| groups.contains(&record.group())).collect();
    group.sort_by_key(|record| record.port);
    Ok(group)
}

/// Writes the record of a server into its folder atomically.
pub fn write(folder: &Path, record: &Record) -> Result<()> {
    let temporary = folder.join("server.json.new");
    fs::write(&temporary, record.to_json().to_string())
        .and_then(|()| fs::rename(&temporary, folder.join(RECORD)))
        .with_context(|| format!("the record in {} cannot be written", folder.display()))
}

fn read(folder: &Path) -> Option<Record> {
    Record::from_json(&serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()?)
}

fn state_folder() -> PathBuf {
    let chosen = std::env::var_os("REDGREASE_STATE_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    let standard = || Some(Xdg::new().ok()?.state_dir()?.join("redgrease"));
    chosen
        .or_else(standard)
        .unwrap_or_else(|| std::env::temp_dir().join(format!("redgrease-{}", rustix::process::geteuid().as_raw())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alive(port: u16) -> Record {
        Record {
            port,
            process: Process::now(std::process::id()),
            memory_only: true,
            cluster: None,
            log: "server.log".into(),
            log_start: 7,
        }
    }

    fn dead(port: u16) -> Record {
        Record { process: Process { pid: std::process::id(), started: Some(1) }, ..alive(port) }
    }

    impl Records {
        /// An empty state folder, removed when the first value is dropped.
        pub fn empty() -> (tempfile::TempDir, Self) {
            state(&[])
        }
    }

    fn state(records: &[Record]) -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().unwrap();
        for (number, record) in records.iter().enumerate() {
            let own = folder.path().join(format!("server-{number}"));
            fs::create_dir(&own).unwrap();
            write(&own, record).unwrap();
        }
        let records = Records { folder: folder.path().to_owned() };
        (folder, records)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (_folder, records) = state(&[alive(7000)]);
        assert_eq!(records.running(None).unwrap(), [alive(7000)]);
    }

    #[test]
    fn a_dead_server_is_not_running_but_its_log_is_known() {
        let (_folder, records) = state(&[dead(7000)]);
        assert!(records.running(None).is_err() && records.running(Some(7000)).is_err());
        assert_eq!(records.latest(None).unwrap(), [dead(7000)]);
        assert!(records.latest(Some(7001)).is_err());
    }

    #[test]
    fn several_servers_need_a_port() {
        let (_folder, records) = state(&[alive(7000), alive(7001), dead(7002)]);
        let error = records.running(None).unwrap_err();
        assert!(error.is::<Misuse>() && error.to_string().ends_with("7000, 7001"), "{error}");
        assert_eq!(records.running(Some(7001)).unwrap(), [alive(7001)]);
    }

    #[test]
    fn the_nodes_of_a_cluster_are_one_group() {
        let node = |port| Record { cluster: Some(30001), ..alive(port) };
        let (_folder, records) = state(&[node(30002), node(30001)]);
        for port in [None, Some(30001), Some(30002)] {
            assert_eq!(records.running(port).unwrap(), [node(30001), node(30002)], "{port:?}");
        }
        let (_folder, records) = state(&[node(30001), node(30002), alive(7000)]);
        let error = records.running(None).unwrap_err();
        assert!(error.to_string().ends_with("7000, 30001"), "{error}");
    }

    #[test]
    fn what_a_dead_server_left_on_the_port_is_swept() {
        let (_folder, records) = state(&[dead(7000), alive(7000), dead(7001)]);
        records.new_server(7000).unwrap();
        let left: Vec<u16> = records.all().iter().map(|(_, record)| record.port).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(records.all().iter().any(|(_, record)| *record == alive(7000)));
    }

    #[test]
    fn a_broken_record_is_passed_over() {
        let (folder, records) = state(&[alive(7000)]);
        fs::write(folder.path().join("server-0").join(RECORD), "{").unwrap();
        assert!(records.running(None).is_err());
    }
}
