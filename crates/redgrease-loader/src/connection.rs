//! Connections to a server, with deadlines and errors that name the fix.

use std::time::Duration;

use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, TlsCertificates,
};

use crate::error::{Class, Error};
use crate::settings::{ConnectionSettings, DEFAULT_PORT, DEFAULT_SERVER};
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WHERE: &str = "start one with `redgrease serve`, or name another with --server and --port, or --url";

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
                usage(format!("--url is not an address: {error}"), "write redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]")
            })?,
            None => tcp(DEFAULT_SERVER, DEFAULT_PORT)?,
        };
        let addr = address(settings, info.addr().clone())?;
        let credentials = credentials(settings, info.redis_settings().clone())?;
        let info = info.set_addr(addr).set_redis_settings(credentials);
        let read = |file: &std::path::PathBuf| {
            std::fs::read(file).map_err(|error| {
                usage(format!("--cacert {}: {error}", file.display()), "name a readable file in PEM format")
            })
        };
        Ok(Self { info, authorities: settings.cacert.as_ref().map(read).transpose()? })
    }

    /// `host:port`, or the path of a socket.
    pub fn place(&self) -> String {
        self.info.addr().to_string()
    }

    /// The user that commands run as.
    pub fn user(&self) -> &str {
        self.info.redis_settings().username().unwrap_or("default")
    }

    /// Connects.
    ///
    /// # Errors
    /// No server answers, or it refuses.
    pub fn connect(&self) -> Result<Connection, Error> {
        self.open().map_err(|error| self.explain(&error))
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    fn open(&self) -> redis::RedisResult<Connection> {
        let client = if self.is_encrypted() {
            // Another library of this process may have chosen one already; any is fine.
            let _chosen_before = rustls::crypto::ring::default_provider().install_default();
            let certificates = TlsCertificates { client_tls: None, root_cert: self.authorities.clone() };
            Client::build_with_tls(self.info.clone(), certificates)?
        } else {
            Client::open(self.info.clone())?
        };
        client.get_connection_with_timeout(CONNECT_TIMEOUT)
    }

    fn explain(&self, error: &RedisError) -> Error {
        let place = self.place();
        if let Some(reason) = tls::error_behind(error) {
            return Error::new(Class::Tls, format!("no encrypted connection to {place}: {reason}"), tls::fix(reason));
        }
        if error.is_connection_refusal() {
            return Error::new(Class::Unreachable, format!("no server answers at {place}"), WHERE);
        }
        if error.is_timeout() {
            let what = format!("{place} did not answer within {} s", CONNECT_TIMEOUT.as_secs());
            if self.is_encrypted() {
                let fix = "see whether this port speaks TLS: leave out --tls, or name the server's tls-port";
                return Error::new(Class::Tls, what, fix);
            }
            return Error::new(
                Class::Unreachable,
                what,
                "see whether the server hangs, or a firewall drops connections",
            );
        }
        if error.kind() == redis::ErrorKind::AuthenticationFailed {
            return Error::new(
                Class::Denied,
                format!("{place} refused the password of user {:?}", self.user()),
                "correct --user, and the password in REDISCLI_AUTH or REDGREASE_PASSWORD",
            );
        }
        if error.code().is_some() {
            return self.explain_reply(error);
        }
        let fix = if self.is_encrypted() {
            "see whether this port expects TLS: without --tls the connection is not encrypted"
        } else if error.is_connection_dropped() || error.kind() == redis::ErrorKind::Parse {
            "see whether this port expects TLS (--tls), and whether a Redis or Valkey server listens there"
        } else {
            "correct --server and --port, or --url"
        };
        Error::new(Class::Unreachable, format!("cannot connect to {place}: {error}"), fix)
    }

    /// The error behind an error of a command.
    pub fn explain_reply(&self, error: &RedisError) -> Error {
        let place = self.place();
        let Some(code) = error.code() else {
            if error.is_timeout() {
                let what = format!("{place} did not answer in time");
                return Error::new(Class::Timeout, what, "wait longer with --timeout, or see what the server is doing");
            }
            let what = format!("the connection to {place} broke: {error}");
            return Error::new(Class::Unreachable, what, "see the log of the server: it may have stopped");
        };
        let text = format!("{code} {}", error.detail().unwrap_or_default());
        let text = text.trim_end();
        match code {
            "NOAUTH" => Error::new(
                Class::Denied,
                format!("{place} asks for a password: {text}"),
                "put it into REDISCLI_AUTH or REDGREASE_PASSWORD, and name the user with --user",
            ),
            "NOPERM" => Error::new(
                Class::Denied,
                format!("user {:?} may not do this at {place}: {text}", self.user()),
                format!(
                    "let an administrator allow it: ACL SETUSER {} +rg.pyexecute +rg.pydumpsessions +rg.unregister +ping \
                     +hset +hget +del ~/redgrease/scripts/*; or name another user with --user",
                    self.user()
                ),
            ),
            "ERR" if is_unknown_command(text) => Error::new(
                Class::NoModule,
                format!("the server at {place} does not have the module redgrease"),
                "start one that has it with `redgrease serve`, or load it: MODULE LOAD /path/to/libredgrease.so",
            ),
            "LOADING" | "MASTERDOWN" | "BUSY" => {
                Error::new(Class::Unreachable, format!("{place} is not ready: {text}"), "wait until it is")
            }
            "READONLY" => Error::new(
                Class::Failed,
                format!("{place} is a replica: {text}"),
                "name the primary with --server and --port",
            ),
            "ERR" => Error::plain(Class::Failed, error.detail().unwrap_or(text).trim_end()),
            _ => Error::plain(Class::Failed, text),
        }
    }
}

fn usage(what: String, fix: &str) -> Error {
    Error::new(Class::Usage, what, fix)
}

fn tcp(host: &str, port: u16) -> Result<ConnectionInfo, Error> {
    let address = ConnectionAddr::Tcp(host.to_owned(), port);
    address.into_connection_info().map_err(|error| usage(format!("--server {host}: {error}"), "name a host"))
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
    let host = settings.server.clone().unwrap_or(host);
    let port = settings.port.unwrap_or(port);
    Ok(if tls || asks_tls {
        ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(host, port)
    })
}

fn credentials(settings: &ConnectionSettings, of_url: RedisConnectionInfo) -> Result<RedisConnectionInfo, Error> {
    let mut info = of_url.set_protocol(ProtocolVersion::RESP2).set_lib_name("redgrease", env!("CARGO_PKG_VERSION"));
    // A password in the address belongs to that address; the variable is for any.
    if let Some(password) = &settings.password
        && (info.password().is_none() || settings.user.is_some())
    {
        info = info.set_password(password);
    }
    if let Some(user) = &settings.user {
        if info.password().is_none() {
            let what = format!("--user {user} needs a password");
            return Err(usage(what, "put it into REDISCLI_AUTH or REDGREASE_PASSWORD"));
        }
        info = info.set_username(user);
    }
    Ok(info)
}

fn is_unknown_command(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("unknown command") && text.contains("rg.")
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
            ConnectionSettings { cacert: Some("/no/such.pem".into()), ..ConnectionSettings::default() },
        ];
        for settings in wrong {
            let error = Target::new(&settings).unwrap_err();
            assert!(error.class == Class::Usage && error.fix.is_some(), "{error}");
        }
    }

    #[test]
    fn a_password_of_the_environment_does_not_replace_that_of_the_address() {
        let settings = ConnectionSettings { password: Some("variable".to_owned()), ..of_url("redis://ada:own@a") };
        assert_eq!(Target::new(&settings).unwrap().info.redis_settings().password(), Some("own"));
    }
}
