//! Connections to a server, with deadlines and errors that name the fix.

use std::path::PathBuf;
use std::time::Duration;

use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, TlsCertificates,
};

use crate::error::{Class, Error};
use crate::explain;
use crate::settings::{ConnectionSettings, DEFAULT_PORT, DEFAULT_SERVER};
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server with everything that connecting needs.
#[derive(Debug, Clone)]
pub struct Target {
    info: ConnectionInfo,
    /// PEM file with the authorities to trust.
    authorities: Option<Vec<u8>>,
}

impl Target {
    /// The server that these options name.
    ///
    /// # Errors
    /// The address is none, options exclude each other, or the file with the authorities cannot be read.
    pub fn new(settings: &ConnectionSettings) -> Result<Self, Error> {
        let info = match settings.url.as_deref() {
            Some(url) => url.into_connection_info().map_err(|error| {
                // The address may hold a password.
                let what = format!("--url (REDGREASE_URL) is not an address: {error}");
                usage(what, "write redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], rediss:// for TLS, or unix:///PATH")
            })?,
            None => tcp(DEFAULT_SERVER, DEFAULT_PORT)?,
        };
        let addr = address(settings, info.addr().clone())?;
        let credentials = credentials(settings, info.redis_settings().clone())?;
        let read = |file: &PathBuf| {
            let name = format!("--cacert {}", file.display());
            let bytes = std::fs::read(file).map_err(|error| explain::unreadable(&name, &error))?;
            let fix = "name a file with certificates between BEGIN CERTIFICATE and END CERTIFICATE";
            tls::check_authorities(&bytes).map_err(|problem| usage(format!("{name} {problem}"), fix))?;
            Ok(bytes)
        };
        let authorities = settings.cacert.as_ref().map(read).transpose()?;
        Ok(Self { info: info.set_addr(addr).set_redis_settings(credentials), authorities })
    }

    /// The same user and settings on another host and port, for the nodes of a cluster.
    #[must_use]
    pub fn with_address(&self, host: &str, port: u16) -> Self {
        let (host, tls) = (host.to_owned(), self.is_encrypted());
        Self { info: self.info.clone().set_addr(host_and_port(host, port, tls)), authorities: self.authorities.clone() }
    }

    /// `host:port`, or the path of a socket.
    pub fn place(&self) -> String {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            other => other.to_string(),
        }
    }

    /// The host; `None` for a socket of this machine.
    pub fn host(&self) -> Option<&str> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => Some(host),
            _ => None,
        }
    }

    /// The user that commands run as.
    pub fn user(&self) -> &str {
        self.info.redis_settings().username().unwrap_or("default")
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Connects. `reply_timeout` bounds every later wait; `None` waits as long as a command takes.
    ///
    /// # Errors
    /// No server answers, or it refuses.
    pub fn connect(&self, protocol: ProtocolVersion, reply_timeout: Option<Duration>) -> Result<Connection, Error> {
        let connection = self.open(protocol).map_err(|error| self.explain(error))?;
        let bounded =
            connection.set_read_timeout(reply_timeout).and_then(|()| connection.set_write_timeout(reply_timeout));
        bounded.map_err(|error| Error::plain(Class::Failed, format!("the connection takes no deadline: {error}")))?;
        Ok(connection)
    }

    fn open(&self, protocol: ProtocolVersion) -> redis::RedisResult<Connection> {
        let settings = self.info.redis_settings().clone().set_protocol(protocol);
        let info = self.info.clone().set_redis_settings(settings);
        redgrease::connect_with(info, CONNECT_TIMEOUT, |info| {
            if !self.is_encrypted() {
                return Client::open(info);
            }
            // Another library of this process may have chosen one already; any is fine.
            let _chosen_before = rustls::crypto::ring::default_provider().install_default();
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: self.authorities.clone() })
        })
    }

    fn explain(&self, error: RedisError) -> Error {
        let place = self.place();
        if let Some(reason) = tls::error_behind(&error) {
            return Error::new(Class::Tls, format!("no encrypted connection to {place}: {reason}"), tls::fix(reason));
        }
        if error.is_connection_refusal() {
            let fix = "start one with `redgrease serve`, or name another with --server and --port, or --url";
            return Error::new(Class::Unreachable, format!("no server answers at {place}"), fix);
        }
        if error.is_timeout() {
            let what = format!("{place} did not answer within {} s", CONNECT_TIMEOUT.as_secs());
            if self.is_encrypted() {
                let fix = "see whether this port speaks TLS: leave out --tls, or name the server's tls-port";
                return Error::new(Class::Tls, what, fix);
            }
            let fix = "see whether the server hangs, or a firewall drops connections";
            return Error::new(Class::Unreachable, what, fix);
        }
        if error.kind() == redis::ErrorKind::AuthenticationFailed {
            let what = format!("WRONGPASS: {place} refused the password of user {:?}", self.user());
            return Error::new(Class::Denied, what, "correct --user, and the password in REDISCLI_AUTH");
        }
        if error.code().is_some() {
            let error = explain::of_client(error.into(), &place);
            return match error.class {
                // Without a fix it has not said which server it is about.
                Class::Failed if error.fix.is_none() => {
                    let what = format!("cannot connect to {place}: {}", error.what);
                    Error::new(error.class, what, "correct --url, or ask an administrator of the server")
                }
                _ => error,
            };
        }
        let fix = if self.is_encrypted() {
            "see whether this port expects TLS: without --tls the connection is not encrypted"
        } else if error.is_connection_dropped() || error.kind() == redis::ErrorKind::Parse {
            "see whether this port expects TLS (--tls), and whether a Redis or Valkey server listens there"
        } else {
            "correct --server and --port, or --url"
        };
        Error::new(Class::Unreachable, one_line(&format!("cannot connect to {place}: {error}")), fix)
    }
}

/// A text without line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn usage(what: String, fix: &str) -> Error {
    Error::new(Class::Usage, what, fix)
}

fn tcp(host: &str, port: u16) -> Result<ConnectionInfo, Error> {
    let address = ConnectionAddr::Tcp(host.to_owned(), port);
    address.into_connection_info().map_err(|error| usage(format!("--server {host}: {error}"), "name a host"))
}

fn host_and_port(host: String, port: u16, tls: bool) -> ConnectionAddr {
    if tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

fn address(settings: &ConnectionSettings, of_url: ConnectionAddr) -> Result<ConnectionAddr, Error> {
    let asks_tls = settings.tls || settings.cacert.is_some();
    let (host, port, tls) = match of_url {
        ConnectionAddr::Tcp(host, port) => (host, port, false),
        ConnectionAddr::TcpTls { host, port, .. } => (host, port, true),
        other if settings.server.is_none() && settings.port.is_none() && !asks_tls => return Ok(other),
        _ => {
            let what = "--server, --port, --tls and --cacert do not go together with a unix:// address";
            return Err(usage(what.to_owned(), "leave them out"));
        }
    };
    // Brackets around an address of IPv6 are those of URLs.
    let bare =
        |host: &String| host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
    let host = settings.server.as_ref().map_or(host, bare);
    Ok(host_and_port(host, settings.port.unwrap_or(port), tls || asks_tls))
}

fn credentials(settings: &ConnectionSettings, of_url: RedisConnectionInfo) -> Result<RedisConnectionInfo, Error> {
    let mut info = of_url;
    // A password in the address belongs to that address; the variable is for any.
    if let Some(password) = &settings.password
        && (info.password().is_none() || settings.user.is_some())
    {
        info = info.set_password(password);
    }
    if let Some(user) = &settings.user {
        if info.password().is_none() {
            let what = format!("--user {user} needs a password");
            return Err(usage(what, "put it into the environment variable REDISCLI_AUTH"));
        }
        info = info.set_username(user);
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_url(url: &str) -> ConnectionSettings {
        ConnectionSettings { url: Some(url.to_owned()), ..ConnectionSettings::default() }
    }

    fn shown(settings: &ConnectionSettings) -> String {
        let target = Target::new(settings).unwrap();
        format!("{}{} as {}", if target.is_encrypted() { "tls " } else { "" }, target.place(), target.user())
    }

    #[test]
    fn options_replace_parts_of_the_address() {
        assert_eq!(shown(&ConnectionSettings::default()), "localhost:6379 as default");
        assert_eq!(shown(&of_url("redis://ada:pw@example.com:7000/3")), "example.com:7000 as ada");
        assert_eq!(shown(&of_url("rediss://example.com")), "tls example.com:6379 as default");
        assert_eq!(shown(&of_url("unix:///tmp/socket")), "/tmp/socket as default");
        assert_eq!(shown(&of_url("redis://[::1]:7000")), "[::1]:7000 as default");
        for server in ["::1", "[::1]"] {
            let settings = ConnectionSettings { server: Some(server.to_owned()), ..ConnectionSettings::default() };
            assert_eq!(shown(&settings), "[::1]:6379 as default");
        }
        let other = ConnectionSettings {
            server: Some("other".to_owned()),
            port: Some(1),
            tls: true,
            user: Some("bob".to_owned()),
            password: Some("x".to_owned()),
            ..of_url("redis://ada:pw@example.com:7000")
        };
        assert_eq!(shown(&other), "tls other:1 as bob");
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        let wrong = [
            of_url("nonsense"),
            ConnectionSettings { port: Some(1), ..of_url("unix:///tmp/socket") },
            ConnectionSettings { user: Some("ada".to_owned()), ..ConnectionSettings::default() },
        ];
        for settings in wrong {
            let error = Target::new(&settings).unwrap_err();
            assert!(error.class == Class::Usage && error.fix.is_some(), "{error}");
        }
        let cacert = ConnectionSettings { cacert: Some("/no/such.pem".into()), ..ConnectionSettings::default() };
        assert_eq!(Target::new(&cacert).unwrap_err().class, Class::Path);
    }

    #[test]
    fn nodes_of_a_cluster_have_the_same_user_and_encryption() {
        let target = Target::new(&of_url("rediss://ada:pw@example.com:7000")).unwrap();
        let node = target.with_address("10.0.0.2", 7001);
        assert_eq!((node.place().as_str(), node.user(), node.is_encrypted()), ("10.0.0.2:7001", "ada", true));
    }

    #[test]
    fn a_password_of_the_environment_does_not_replace_that_of_the_address() {
        let settings = ConnectionSettings { password: Some("variable".to_owned()), ..of_url("redis://ada:own@a") };
        assert_eq!(Target::new(&settings).unwrap().info.redis_settings().password(), Some("own"));
    }
}
