//! A client: a connection whose errors have a fix.

use std::fmt;
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionInfo, ConnectionLike, IntoConnectionInfo, ProtocolVersion, RedisResult, Value};

use crate::call::Request;
use crate::connection::GearsConnection;
use crate::error::{Error, Result};

/// The longest time to wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one server.
///
/// It has the commands of [`GearsCommands`](crate::GearsCommands) and, as a connection of redis-rs, those of
/// [`redis::Commands`].
///
/// ```no_run
/// use redgrease::{Client, GearsCommands};
///
/// # fn main() -> redgrease::Result<()> {
/// let mut client = Client::connect("redis://localhost:6379")?;
/// for registration in client.rg_dump_registrations()? {
///     println!("{} {}", registration.id, registration.reader);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Client {
    connection: redis::Connection,
}

impl Client {
    /// Connects to an address such as `redis://user:password@host:6379/0`, with RESP3; `rediss://` is TLS.
    ///
    /// Replies are waited for as long as their commands take: see [`Client::set_reply_timeout`].
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Tls`], [`Error::Authentication`]: the server is not there, or refuses.
    /// [`Error::Argument`]: this is no address.
    pub fn connect(address: &str) -> Result<Client> {
        let connection = information(address)
            .and_then(|information| connect_with(information, CONNECT_TIMEOUT, redis::Client::open));
        Ok(Client { connection: connection.map_err(|error| Error::of_connecting(error, &shown(address)))? })
    }

    /// How long a reply is waited for; `None`: as long as the command takes.
    ///
    /// # Errors
    /// [`Error::Client`]: the time is zero.
    pub fn set_reply_timeout(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.connection.set_read_timeout(timeout).map_err(Error::Client)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("is_open", &self.connection.is_open()).finish_non_exhaustive()
    }
}

impl From<redis::Connection> for Client {
    fn from(connection: redis::Connection) -> Client {
        Client { connection }
    }
}

impl GearsConnection for Client {
    fn send_request(&mut self, request: &Request) -> RedisResult<Value> {
        self.connection.send_request(request)
    }
}

impl ConnectionLike for Client {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.connection.req_packed_command(command)
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        self.connection.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }

    fn check_connection(&mut self) -> bool {
        self.connection.check_connection()
    }

    fn is_open(&self) -> bool {
        self.connection.is_open()
    }
}

/// Opens a connection with a client of redis-rs that the program makes, such as one with certificates of its own. All of it
/// takes at most this time.
///
/// ```no_run
/// use redgrease::redis::{Client, IntoConnectionInfo, TlsCertificates};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let certificates = TlsCertificates { client_tls: None, root_cert: Some(std::fs::read("authority.pem")?) };
/// let information = "rediss://example.com".into_connection_info()?;
/// let connection = redgrease::connect_with(information, redgrease::CONNECT_TIMEOUT, |information| {
///     Client::build_with_tls(information, certificates)
/// })?;
/// let client = redgrease::Client::from(connection);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// That of redis-rs.
pub fn connect_with(
    information: ConnectionInfo,
    timeout: Duration,
    client: impl FnOnce(ConnectionInfo) -> RedisResult<redis::Client>,
) -> RedisResult<redis::Connection> {
    let began = Instant::now();
    let settings = information.redis_settings().clone();
    let database = settings.db();
    // redis-rs waits as long for the reply of each command that it sends itself.
    let client = client(information.set_redis_settings(settings.set_db(0).set_skip_set_lib_name()))?;
    let mut connection = client.get_connection_with_timeout(timeout)?;
    let mut send = |command: &mut Cmd| {
        let left = timeout.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
        let left = left.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::TimedOut))?;
        connection.set_read_timeout(Some(left))?;
        connection.set_write_timeout(Some(left))?;
        command.exec(&mut connection)
    };
    if database != 0 {
        send(redis::cmd("SELECT").arg(database))?;
    }
    for (name, value) in [("LIB-NAME", "redgrease"), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
        match send(redis::cmd("CLIENT").arg("SETINFO").arg(name).arg(value)) {
            // Old servers do not know it, and users may lack the permission.
            Err(error) if error.code().is_none() => return Err(error),
            _ => {}
        }
    }
    connection.set_read_timeout(None)?;
    connection.set_write_timeout(None)?;
    Ok(connection)
}

/// What is needed to connect to an address.
pub(crate) fn information(address: &str) -> RedisResult<ConnectionInfo> {
    provide_tls();
    let information = address.into_connection_info()?;
    let settings = information
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("redgrease", env!("CARGO_PKG_VERSION"));
    Ok(information.set_redis_settings(settings))
}

/// redis-rs leaves the choice of rustls' cryptography to the program.
pub(crate) fn provide_tls() {
    #[cfg(feature = "tls")]
    {
        // An error means that the program has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// An address without its password, for errors.
pub(crate) fn shown(address: &str) -> String {
    match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{}", &address[..scheme + 3], &address[at + 1..]),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_show_the_password() {
        let table = [
            ("redis://ada:secret@host:1/0", "redis://host:1/0"),
            ("rediss://:p@ss@host", "rediss://host"),
            ("redis://host:1", "redis://host:1"),
            ("host@x", "host@x"),
        ];
        for (address, expected) in table {
            assert_eq!(shown(address), expected);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_form_of_addresses() {
        let error = Client::connect("nonsense").unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error:?}");
        assert!(error.to_string().contains("\nAddresses are redis://"), "{error}");
    }
}
