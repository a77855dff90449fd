//! Connections to a server, with deadlines and errors that name the fix.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use redis::{Client, Connection, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Address of a server, and credentials.
pub struct Address<'a> {
    pub host: &'a str,
    pub port: u16,
    pub user: Option<&'a str>,
    pub password: Option<&'a str>,
}

impl Address<'_> {
    /// A server on this machine without a password.
    pub fn local(port: u16) -> Address<'static> {
        Address { host: "127.0.0.1", port, user: None, password: None }
    }

    /// Connects. `reply_timeout` bounds every later wait; `None` waits as long as the command takes.
    pub fn connect(&self, protocol: ProtocolVersion, reply_timeout: Option<Duration>) -> Result<Connection> {
        let connection = self.open(protocol).map_err(|error| self.explain(&error))?;
        connection.set_read_timeout(reply_timeout).context("the connection takes no deadline")?;
        Ok(connection)
    }

    fn open(&self, protocol: ProtocolVersion) -> redis::RedisResult<Connection> {
        let mut settings =
            RedisConnectionInfo::default().set_protocol(protocol).set_lib_name("redgrease", env!("CARGO_PKG_VERSION"));
        if let Some(user) = self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = self.password {
            settings = settings.set_password(password);
        }
        let address = ConnectionAddr::Tcp(self.host.to_owned(), self.port);
        let information = address.into_connection_info()?.set_redis_settings(settings);
        Client::open(information)?.get_connection_with_timeout(CONNECT_TIMEOUT)
    }

    fn explain(&self, error: &redis::RedisError) -> anyhow::Error {
        let place = format!("{}:{}", self.host, self.port);
        if error.is_connection_refusal() {
            return anyhow!(
                "no server answers at {place}: start one with `redgrease serve`, or name another with --host and --port"
            );
        }
        if error.is_timeout() {
            return anyhow!("{place} did not answer within {} s", CONNECT_TIMEOUT.as_secs());
        }
        anyhow!("cannot connect to {place}: {error}")
    }
}
