//! A server over the client for Rust: it sends scripts to a master, and follows redirections of a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use redgrease::{
    Error as ClientError, Executed, GearsCommands, Linked, Pending, PyExecute, RegistrationId, SessionQuery,
};
use redis::{Connection, ProtocolVersion, Value};

use crate::connection::Target;
use crate::error::{Class, Error};
use crate::explain;
use crate::server::{Outcome, Script, Server};

/// The longest wait for the reply of a command that is not a script.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Nodes that one command is sent to, one after the other, as redirections say.
const REDIRECTIONS_MAX: usize = 5;
/// Connections to other nodes of a cluster that are kept.
const NODES_MAX: usize = 64;

/// A server, and the connections to it.
pub struct RedisServer {
    /// What was named.
    named: Target,
    /// Where scripts are sent: the named server, or its master.
    master: Option<Node>,
    /// Other nodes of the cluster, which have keys of the index.
    others: BTreeMap<Address, Connection>,
}

struct Node {
    target: Target,
    connection: Connection,
}

/// Host and port of a node.
type Address = (String, u16);

/// What an error says about where to send a command.
enum Redirection {
    /// To that node.
    To { address: Address, asking: bool },
    /// To the master of a replica.
    ToMaster,
}

impl RedisServer {
    /// The server at this address; it is not connected yet.
    pub fn new(target: Target) -> Self {
        Self { named: target, master: None, others: BTreeMap::new() }
    }

    /// Sends a command, again and elsewhere if the reply says so.
    fn ask<T>(
        &mut self,
        timeout: Duration,
        mut send: impl FnMut(&mut Connection) -> redgrease::Result<T>,
    ) -> Result<T, Error> {
        let mut to: Option<(Address, bool)> = None;
        let mut has_looked_for_master = false;
        for _ in 0..REDIRECTIONS_MAX {
            let connection = match &to {
                None => self.master()?,
                Some((address, _)) => self.node(address)?,
            };
            let asking = to.as_ref().is_some_and(|(_, asking)| *asking);
            let error = match within(connection, timeout, asking, &mut send) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match redirection(&error, self.host(to.as_ref())) {
                Some(Redirection::To { address, asking }) => to = Some((address, asking)),
                Some(Redirection::ToMaster) if !has_looked_for_master => {
                    has_looked_for_master = true;
                    self.master = None;
                    to = None;
                }
                _ => return Err(self.failed(error, to.map(|(address, _)| address))),
            }
        }
        let what = format!("{} redirected a command {REDIRECTIONS_MAX} times", self.named.place());
        Err(Error::new(Class::Failed, what, "see whether the nodes of the cluster agree: redgrease doctor"))
    }

    /// The connection for scripts.
    fn master(&mut self) -> Result<&mut Connection, Error> {
        let node = match self.master.take() {
            Some(node) => node,
            None => connect_to_master(&self.named)?,
        };
        Ok(&mut self.master.insert(node).connection)
    }

    /// The connection to another node of the cluster.
    fn node(&mut self, address: &Address) -> Result<&mut Connection, Error> {
        let connection = match self.others.remove(address) {
            Some(connection) => connection,
            None => open(&self.named.with_address(&address.0, address.1))?,
        };
        if self.others.len() >= NODES_MAX {
            self.others.clear();
        }
        Ok(self.others.entry(address.clone()).or_insert(connection))
    }

    /// The host of a node, which redirections without a host mean.
    fn host(&self, node: Option<&(Address, bool)>) -> String {
        let master = self.master.as_ref().map_or(&self.named, |node| &node.target);
        node.map_or_else(|| master.host().unwrap_or("127.0.0.1"), |((host, _), _)| host).to_owned()
    }

    /// A connection without a reply is of no use: the reply of this command could be taken for that of the next.
    fn failed(&mut self, error: ClientError, node: Option<Address>) -> Error {
        let place = match &node {
            Some((host, port)) => format!("{host}:{port}"),
            None => self.place(),
        };
        let has_reply = matches!(
            error,
            ClientError::Server(_)
                | ClientError::NoPermission { .. }
                | ClientError::NoModule { .. }
                | ClientError::Authentication { .. }
                | ClientError::Reply { .. }
                | ClientError::Decode { .. }
        );
        match node {
            _ if has_reply => {}
            Some(address) => drop(self.others.remove(&address)),
            None => self.master = None,
        }
        if let ClientError::NoPermission { reason } = error {
            let user = self.named.user();
            let what = format!("user {user:?} may not do this at {place}: {reason}");
            let fix = format!(
                "let an administrator allow it: ACL SETUSER {user} +rg.pyexecute +rg.pydumpsessions +rg.unregister +ping \
                 +hset +hget +del ~/redgrease/scripts/*; or name another user with --user"
            );
            return Error::new(Class::Denied, what, fix);
        }
        explain::of_client(error, &place)
    }
}

fn open(target: &Target) -> Result<Connection, Error> {
    target.connect(ProtocolVersion::RESP2, Some(REPLY_TIMEOUT))
}

/// Connects to a server, or to its master if it is a replica.
fn connect_to_master(named: &Target) -> Result<Node, Error> {
    let mut target = named.clone();
    for _ in 0..REDIRECTIONS_MAX {
        let mut connection = open(&target)?;
        // A user may lack the permission: then the server is taken for a master.
        let role: Vec<Value> = redis::cmd("ROLE").query(&mut connection).unwrap_or_default();
        match master_of(&role) {
            Some((host, port)) => target = target.with_address(&host, port),
            None => return Ok(Node { target, connection }),
        }
    }
    let what = format!("{} is a replica of a replica, {REDIRECTIONS_MAX} times", named.place());
    Err(Error::new(Class::Failed, what, "name the master with --server and --port"))
}

/// The master in the reply of `ROLE` of a replica.
fn master_of(role: &[Value]) -> Option<Address> {
    let [kind, host, Value::Int(port), ..] = role else { return None };
    let text = |value: &Value| redis::from_redis_value_ref::<String>(value).ok();
    (text(kind)? == "slave").then_some((text(host)?, u16::try_from(*port).ok()?))
}

/// Sends a command on a connection.
fn within<T>(
    connection: &mut Connection,
    timeout: Duration,
    asking: bool,
    send: &mut impl FnMut(&mut Connection) -> redgrease::Result<T>,
) -> redgrease::Result<T> {
    connection.set_read_timeout(Some(timeout))?;
    connection.set_write_timeout(Some(timeout))?;
    if asking {
        redis::cmd("ASKING").exec(connection)?;
    }
    send(connection)
}

/// Where an error reply sends a command; `host` is that of the node that answered.
fn redirection(error: &ClientError, host: String) -> Option<Redirection> {
    let ClientError::Server(server) = error else { return None };
    let asking = match server.code()? {
        "MOVED" => false,
        "ASK" => true,
        "READONLY" => return Some(Redirection::ToMaster),
        _ => return None,
    };
    // MOVED 3999 10.0.0.2:6381
    let (named, port) = server.text().split_whitespace().nth(2)?.rsplit_once(':')?;
    let host = if named.is_empty() { host } else { named.trim_matches(['[', ']']).to_owned() };
    Some(Redirection::To { address: (host, port.parse().ok()?), asking })
}

impl Server for RedisServer {
    fn connect(&mut self) -> Result<(), Error> {
        self.master = None;
        self.others.clear();
        // Answered by servers with the module, also if there is no such session.
        self.registrations(&["none".to_owned()]).map(|_| ())
    }

    fn ping(&mut self) -> Result<(), Error> {
        match self.ask(REPLY_TIMEOUT, |connection| Ok(redis::cmd("PING").exec(connection)?)) {
            // A refusal is an answer.
            Err(error) if error.class != Class::Denied => Err(error),
            _ => Ok(()),
        }
    }

    fn execute(&mut self, script: &Script<'_>) -> Result<Outcome, Error> {
        let mut request = PyExecute::script(script.text).plain_results().requirements(script.requirements);
        if script.unblocking {
            request = request.unblocking();
        }
        if let Some(session) = script.session {
            request = request.id(session).description(script.description).upgrade();
        }
        let executed = self.ask(script.timeout, |connection| match connection.rg_py_execute(request.clone()) {
            // An exception is no error of the server, and has a traceback.
            Err(ClientError::Server(error)) if error.python().is_some() => Ok(Err(error)),
            other => other.map(Ok),
        })?;
        match executed {
            Ok(Executed::Results(results)) => {
                Ok(Outcome { results: Some(results.records.len()), errors: results.errors, execution: None })
            }
            Ok(Executed::Started(id)) => Ok(Outcome { execution: Some(id.to_string()), ..Outcome::default() }),
            Ok(_) => Ok(Outcome::default()),
            Err(error) => match error.python() {
                Some(exception) => Err(Error::plain(Class::Failed, explain::exception_first(&exception))),
                None => Err(Error::plain(Class::Failed, error.text())),
            },
        }
    }

    fn registrations(&mut self, sessions: &[String]) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let query = SessionQuery::of(sessions);
        let rows = self.ask(REPLY_TIMEOUT, |connection| connection.rg_py_dump_sessions(&query))?;
        let id = |linked: &Linked<RegistrationId, _>| match linked {
            Linked::Name(id) => Some(id.to_string()),
            _ => None,
        };
        Ok(rows.into_iter().map(|row| (row.id, row.registrations.iter().filter_map(id).collect())).collect())
    }

    fn unregister(&mut self, registration: &str) -> Result<bool, Error> {
        // The index may hold anything.
        let Ok(id) = registration.parse::<RegistrationId>() else { return Ok(false) };
        self.ask(REPLY_TIMEOUT, |connection| match connection.rg_unregister(&id, Pending::Run) {
            Err(ClientError::Server(error)) if error.is_not_found() => Ok(false),
            other => other.map(|()| true),
        })
    }

    fn write_hash(&mut self, key: &[u8], fields: &[(&str, String)]) -> Result<(), Error> {
        self.ask(REPLY_TIMEOUT, |connection| Ok(redis::cmd("HSET").arg(key).arg(fields).exec(connection)?))
    }

    fn read_hash(&mut self, key: &[u8], field: &str) -> Result<Option<String>, Error> {
        let value: Option<Vec<u8>> =
            self.ask(REPLY_TIMEOUT, |connection| Ok(redis::cmd("HGET").arg(key).arg(field).query(connection)?))?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Error> {
        self.ask(REPLY_TIMEOUT, |connection| Ok(redis::cmd("DEL").arg(key).exec(connection)?))
    }

    fn place(&self) -> String {
        self.master.as_ref().map_or(&self.named, |node| &node.target).place()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(reply: &str) -> Option<Redirection> {
        let redis::Value::ServerError(error) = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap()
        else {
            panic!("no error: {reply}");
        };
        redirection(&redis::RedisError::from(error).into(), "asked".to_owned())
    }

    #[test]
    fn redirections_name_a_node_or_mean_the_master() {
        for (reply, host, port, is_asking) in [
            ("MOVED 3999 10.0.0.2:6381", "10.0.0.2", 6381, false),
            ("MOVED 3999 ::1:6381", "::1", 6381, false),
            ("MOVED 3999 [::1]:6381", "::1", 6381, false),
            ("MOVED 3999 :6381", "asked", 6381, false),
            ("ASK 3999 node.example.com:6381", "node.example.com", 6381, true),
        ] {
            let Some(Redirection::To { address, asking }) = of(reply) else { panic!("{reply}") };
            assert_eq!((address, asking), ((host.to_owned(), port), is_asking), "{reply}");
        }
        assert!(matches!(of("READONLY scripts are not run"), Some(Redirection::ToMaster)));
    }

    #[test]
    fn other_errors_are_no_redirections() {
        for reply in
            ["ERR MOVED", "MOVED", "MOVED 3999", "MOVED 3999 host", "MOVED 1 host:0x", "ASK 1 :99999", "WRONGTYPE x"]
        {
            assert!(of(reply).is_none(), "{reply}");
        }
    }

    #[test]
    fn the_role_of_a_replica_names_its_master() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let replica = [bulk("slave"), bulk("10.0.0.1"), Value::Int(6379), bulk("connected"), Value::Int(14)];
        assert_eq!(master_of(&replica), Some(("10.0.0.1".to_owned(), 6379)));
        assert_eq!(master_of(&[bulk("master"), Value::Int(14), Value::Array(vec![])]), None);
        assert_eq!(master_of(&[bulk("slave"), Value::Nil, Value::Int(-1)]), None);
        assert_eq!(master_of(&[]), None);
    }
}
