//! What `doctor` finds out about a server, before it judges.

use redgrease::{GearsCommands, PyExecute};
use redis::{Connection, ProtocolVersion};

use crate::connection::Target;
use crate::failure::Failure;
use crate::gears;
use crate::ids;
use crate::info::Info;
use crate::listing;

/// Prints the versions of Python and of the package in a worker.
const VERSIONS: &str = "\
def versions(_):
    import sys
    import redgrease
    return sys.version.split()[0] + ' ' + redgrease.__version__
GB('PythonReader').map(versions).run(lambda: iter([0]), mode='async_local')";

/// Settings of the server that are looked at.
const SETTINGS: [&str; 6] = ["save", "appendonly", "protected-mode", "requirepass", "bind", "rg.PendingEventBytesMax"];

/// What is known about a server.
#[derive(Debug, Clone)]
pub struct Facts {
    pub place: String,
    pub info: Info,
    /// Version of the module; `None` if it is not loaded.
    pub module: Option<u64>,
    /// Names and values; empty if the user may not read the configuration.
    pub settings: Vec<(String, String)>,
    /// Versions of Python and of the package in a worker, or why there are none.
    pub interpreter: Option<Result<(String, String), Failure>>,
    /// Registrations, or why they cannot be listed.
    pub registrations: Result<Vec<Registered>, Failure>,
    /// All nodes of the cluster; empty without one.
    pub nodes: Vec<Node>,
}

/// A registration.
#[derive(Debug, Clone, Default)]
pub struct Registered {
    pub id: String,
    pub source: String,
    pub triggered: u64,
    pub failed: u64,
    pub last_error: String,
}

/// A node of a cluster.
#[derive(Debug, Clone)]
pub struct Node {
    pub address: String,
    pub is_master: bool,
    /// Version of its module, if it has one; or why it cannot be asked.
    pub module: Result<Option<u64>, String>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            place: String::new(),
            info: Info::default(),
            module: None,
            settings: Vec::new(),
            interpreter: None,
            registrations: Ok(Vec::new()),
            nodes: Vec::new(),
        }
    }
}

impl Facts {
    pub fn gather(target: &Target) -> Result<Self, Failure> {
        let mut connection = gears::open(target, Some(gears::REPLY_TIMEOUT))?;
        let text = gears::info(&mut connection, &["everything"])?;
        let mut facts = Self {
            place: target.place(),
            module: module_version(&text),
            info: Info::parse(&text),
            settings: settings(&mut connection),
            nodes: nodes(&mut connection, target),
            ..Self::default()
        };
        if facts.module.is_some() {
            facts.registrations = registrations(&mut connection);
            if facts.info.get("role") == Some("master") {
                facts.interpreter = Some(interpreter(&mut connection));
            }
        }
        Ok(facts)
    }

    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The version of the module in INFO; 10203 is 1.2.3.
fn module_version(info: &str) -> Option<u64> {
    let row = info.lines().find(|line| line.starts_with("module:name=rg,"))?;
    row.split(',').find_map(|field| field.strip_prefix("ver="))?.parse().ok()
}

fn settings(connection: &mut Connection) -> Vec<(String, String)> {
    // A user may lack the permission; then the checks that need a setting are left out.
    redis::cmd("CONFIG").arg("GET").arg(&SETTINGS).query(connection).unwrap_or_default()
}

fn registrations(connection: &mut Connection) -> Result<Vec<Registered>, Failure> {
    let rows = connection.rg_dump_registrations().map_err(gears::failed)?;
    let known = |row: redgrease::Registration| Registered {
        id: ids::short(&row.id),
        source: listing::short_source(&row.source),
        triggered: row.triggered,
        failed: row.failed,
        last_error: row.last_error.as_deref().map_or(String::new(), listing::short_error),
    };
    Ok(rows.into_iter().map(known).collect())
}

fn interpreter(connection: &mut Connection) -> Result<(String, String), Failure> {
    let executed = connection.rg_py_execute(PyExecute::script(VERSIONS)).map_err(gears::failed)?;
    let versions: String = executed.into_results().get().map_err(gears::failed)?;
    let (python, package) = versions.split_once(' ').unwrap_or((&versions, ""));
    Ok((python.to_owned(), package.to_owned()))
}

fn nodes(connection: &mut Connection, target: &Target) -> Vec<Node> {
    let rows: String = redis::cmd("CLUSTER").arg("NODES").query(connection).unwrap_or_default();
    rows.lines()
        .filter_map(|row| {
            let mut words = row.split(' ').skip(1);
            let address = words.next()?.split('@').next()?;
            let is_master = words.next()?.contains("master");
            let (host, port) = address.rsplit_once(':')?;
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            let node = target.with_address(host, port.parse().ok()?);
            Some(Node { address: node.place(), is_master, module: module_of(&node) })
        })
        .collect()
}

fn module_of(node: &Target) -> Result<Option<u64>, String> {
    let mut connection =
        node.connect(ProtocolVersion::RESP3, Some(gears::REPLY_TIMEOUT)).map_err(|failure| failure.what)?;
    let text = gears::info(&mut connection, &["modules"]).map_err(|failure| failure.what)?;
    Ok(module_version(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_module_is_found() {
        let text = "module:name=lua,ver=1,api=1\r\nmodule:name=rg,ver=10000,api=1,options=[]\r\n";
        assert_eq!(module_version(text), Some(10000));
        assert_eq!(module_version("module:name=lua,ver=1\r\n"), None);
    }
}
