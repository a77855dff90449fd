//! Which server, and as which user: the connection options that subcommands share.

use std::path::PathBuf;

use redgrease_loader::settings::ConnectionSettings;

pub use redgrease_loader::connection::Target;

use crate::failure::Failure;

/// Where `redgrease serve` listens.
const DEFAULT_HOST: &str = "127.0.0.1";

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
    pub fn target(&self) -> Result<Target, Failure> {
        // A variable that is empty is not set.
        let url = self.url.clone().filter(|url| !url.is_empty());
        let server = self.server.clone().or_else(|| url.is_none().then(|| DEFAULT_HOST.to_owned()));
        Target::new(&ConnectionSettings {
            server,
            port: self.port,
            url,
            tls: self.tls,
            cacert: self.cacert.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
        })
    }

    /// A server of this machine, without a password.
    pub fn local(port: u16) -> Self {
        Self { port: Some(port), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(options: &ConnectionOptions) -> String {
        let target = options.target().unwrap();
        format!("{} as {}", target.place(), target.user())
    }

    #[test]
    fn a_server_of_this_machine_is_the_default() {
        let url = |url: &str| ConnectionOptions { url: Some(url.to_owned()), ..ConnectionOptions::default() };
        assert_eq!(place(&ConnectionOptions::default()), "127.0.0.1:6379 as default");
        assert_eq!(place(&url("")), "127.0.0.1:6379 as default", "an empty variable is none");
        assert_eq!(place(&url("redis://ada:pw@example.com:7000/3")), "example.com:7000 as ada");
        assert_eq!(place(&ConnectionOptions::local(7000)), "127.0.0.1:7000 as default");
        let options = ConnectionOptions { port: Some(7000), ..url("unix:///tmp/socket") };
        assert_eq!(options.target().unwrap_err().class, crate::failure::Class::Usage);
    }
}
