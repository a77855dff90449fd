//! Which server, and as which user: the connection options that subcommands share, and connecting.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, TlsCertificates,
};

use redgrease_loader::tls;

use crate::failure::{self, Class, Failure};
use crate::misuse::misuse;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 6379;

/// The connection options of a subcommand.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionOptions {
    /// Host of the server [default: 127.0.0.1]
    #[arg(long, short, visible_alias = "host", value_name = "HOST")]
    pub server: Option<String>,
    /// Port of the server [default: 6379]
    #[arg(long, short, value_name = "PORT")]
    pub port: Option<u16>,
    /// The server as redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], rediss:// for TLS, or unix:///PATH; the other options
    /// replace parts of it
    #[arg(long, value_name = "URL", env = "REDGREASE_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// Encrypt the connection, and check the certificate of the server
    #[arg(long)]
    pub tls: bool,
    /// Certificates of the authorities to trust, in PEM format [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// User to authenticate as; the password is read from the environment variable REDISCLI_AUTH
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Password; prefer the environment variable: other users can read command lines
    #[arg(long, value_name = "PASSWORD", env = "REDISCLI_AUTH", hide_env_values = true)]
    pub password: Option<String>,
}

impl ConnectionOptions {
    /// The server that these options name.
    pub fn target(&self) -> Result<Target> {
        let mut info = match self.url.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => url.into_connection_info().map_err(|error| {
                misuse(format!("--url (REDGREASE_URL) is not an address: {error}; write redis://HOST:PORT"))
            })?,
            None => ConnectionAddr::Tcp(DEFAULT_HOST.to_owned(), DEFAULT_PORT).into_connection_info()?,
        };
        let address = self.address(info.addr().clone())?;
        let settings = self.credentials(info.redis_settings().clone())?;
        info = info.set_addr(address).set_redis_settings(settings);
        let authorities = match &self.cacert {
            Some(file) => Some(
                std::fs::read(file)
                    .map_err(|error| failure::of_file(&format!("--cacert {}", file.display()), &error))?,
            ),
            None => None,
        };
        Ok(Target { info, authorities })
    }

    fn address(&self, of_url: ConnectionAddr) -> Result<ConnectionAddr> {
        let (host, port, tls) = match of_url {
            ConnectionAddr::Tcp(host, port) => (host, port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host, port, true),
            other if self.server.is_none() && self.port.is_none() && !self.tls && self.cacert.is_none() => {
                return Ok(other);
            }
            _ => return Err(misuse("--server, --port, --tls and --cacert do not go together with a unix:// address")),
        };
        let host = self.server.clone().unwrap_or(host);
        let port = self.port.unwrap_or(port);
        Ok(if tls || self.tls || self.cacert.is_some() {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        })
    }

    fn credentials(&self, mut settings: RedisConnectionInfo) -> Result<RedisConnectionInfo> {
        // A password in the address belongs to that address; the environment variable is for any.
        if let Some(password) = &self.password
            && (settings.password().is_none() || self.user.is_some())
        {
            settings = settings.set_password(password);
        }
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
            if settings.password().is_none() {
                return Err(misuse(format!(
                    "--user {user} needs a password: put it into the environment variable REDISCLI_AUTH"
                )));
            }
        }
        Ok(settings.set_lib_name("redgrease", env!("CARGO_PKG_VERSION")))
    }
}

/// A server with everything that connecting needs.
#[derive(Debug, Clone)]
pub struct Target {
    info: ConnectionInfo,
    /// PEM file with the authorities to trust.
    authorities: Option<Vec<u8>>,
}

impl Target {
    /// A server on this machine without a password.
    pub fn local(port: u16) -> Self {
        let info = ConnectionAddr::Tcp(DEFAULT_HOST.to_owned(), port)
            .into_connection_info()
            .expect("the address is a number")
            .set_redis_settings(RedisConnectionInfo::default().set_lib_name("redgrease", env!("CARGO_PKG_VERSION")));
        Self { info, authorities: None }
    }

    /// The same user and settings on another host and port, for the nodes of a cluster.
    pub fn with_address(&self, host: &str, port: u16) -> Self {
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { .. } => {
                ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None }
            }
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        };
        Self { info: self.info.clone().set_addr(address), authorities: self.authorities.clone() }
    }

    /// `host:port`, or the path of a socket.
    pub fn place(&self) -> String {
        self.info.addr().to_string()
    }

    /// The user that commands run as.
    pub fn user(&self) -> &str {
        self.info.redis_settings().username().unwrap_or("default")
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Connects. `reply_timeout` bounds every later wait; `None` waits as long as the command takes.
    pub fn connect(&self, protocol: ProtocolVersion, reply_timeout: Option<Duration>) -> Result<Connection, Failure> {
        let connection = self.open(protocol).map_err(|error| self.explain(&error))?;
        connection
            .set_read_timeout(reply_timeout)
            .map_err(|error| Failure::plain(Class::Failed, format!("the connection takes no deadline: {error}")))?;
        Ok(connection)
    }

    fn open(&self, protocol: ProtocolVersion) -> redis::RedisResult<Connection> {
        let settings = self.info.redis_settings().clone().set_protocol(protocol);
        let info = self.info.clone().set_redis_settings(settings);
        let client = if self.is_encrypted() {
            // Another library of this process may have chosen one already.
            let _chosen_before = rustls::crypto::ring::default_provider().install_default();
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: self.authorities.clone() })?
        } else {
            Client::open(info)?
        };
        client.get_connection_with_timeout(CONNECT_TIMEOUT)
    }

    fn explain(&self, error: &RedisError) -> Failure {
        let place = self.place();
        if error.is_connection_refusal() {
            return Failure::new(
                Class::Unreachable,
                format!("no server answers at {place}"),
                "start one with `redgrease serve`, or name another with --server and --port, or --url",
            );
        }
        if let Some(reason) = tls::error_behind(error) {
            return Failure::new(Class::Tls, format!("no encrypted connection to {place}: {reason}"), tls::fix(reason));
        }
        if error.kind() == ErrorKind::AuthenticationFailed {
            return failure::of_reply(&format!("WRONGPASS {place} refused the user {}", self.user()));
        }
        if error.code().is_some() {
            return failure::of_command(error, &place);
        }
        if error.is_timeout() && self.is_encrypted() {
            return Failure::new(
                Class::Tls,
                format!("{place} did not answer the TLS handshake within {} s", CONNECT_TIMEOUT.as_secs()),
                "this port may not speak TLS: connect without --tls, or name the server's tls-port",
            );
        }
        if error.is_timeout() {
            return Failure::new(
                Class::Unreachable,
                format!("{place} did not answer within {} s", CONNECT_TIMEOUT.as_secs()),
                "look whether the server hangs, and whether a firewall drops connections",
            );
        }
        let fix = if self.is_encrypted() {
            "look whether this port expects TLS; without --tls the connection is not encrypted"
        } else if error.is_connection_dropped() || error.kind() == ErrorKind::Parse {
            "look whether this port expects TLS (--tls), and whether a Redis or Valkey server listens there"
        } else {
            "correct --server and --port, or --url"
        };
        Failure::new(Class::Unreachable, one_line(&format!("cannot connect to {place}: {error}")), fix)
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(options: &ConnectionOptions) -> String {
        let target = options.target().unwrap();
        format!("{}{} as {}", if target.is_encrypted() { "tls " } else { "" }, target.place(), target.user())
    }

    fn url(url: &str) -> ConnectionOptions {
        ConnectionOptions { url: Some(url.to_owned()), ..ConnectionOptions::default() }
    }

    #[test]
    fn options_replace_parts_of_the_address() {
        assert_eq!(place(&ConnectionOptions::default()), "127.0.0.1:6379 as default");
        assert_eq!(place(&url("redis://ada:pw@example.com:7000/3")), "example.com:7000 as ada");
        assert_eq!(place(&url("rediss://example.com")), "tls example.com:6379 as default");
        let other = ConnectionOptions {
            server: Some("other".to_owned()),
            port: Some(1),
            tls: true,
            user: Some("bob".to_owned()),
            password: Some("x".to_owned()),
            ..url("redis://ada:pw@example.com:7000")
        };
        assert_eq!(place(&other), "tls other:1 as bob");
        assert_eq!(place(&url("unix:///tmp/socket")), "/tmp/socket as default");
        assert_eq!(place(&url("")), "127.0.0.1:6379 as default", "an empty variable is none");
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        let wrong = [
            url("nonsense"),
            ConnectionOptions { port: Some(1), ..url("unix:///tmp/socket") },
            ConnectionOptions { user: Some("ada".to_owned()), ..ConnectionOptions::default() },
        ];
        for options in wrong {
            let error = options.target().unwrap_err();
            assert!(error.is::<crate::misuse::Misuse>(), "{error}");
        }
    }

    #[test]
    fn a_password_of_the_environment_does_not_replace_that_of_the_address() {
        let options = ConnectionOptions { password: Some("variable".to_owned()), ..url("redis://ada:own@localhost") };
        assert_eq!(options.target().unwrap().info.redis_settings().password(), Some("own"));
    }
}
