//! Where a link goes, and how it authenticates: as the server itself does towards its master and in the cluster.

use redgrease_engine::cluster::topology::Address;

/// Where a link goes, and how it authenticates.
pub struct Target {
    /// Where.
    pub address: Address,
    /// What is sent with `AUTH`; `None`: nothing.
    pub credentials: Option<Credentials>,
    /// The files for TLS; `None`: the link is not encrypted.
    pub tls: Option<TlsFiles>,
}

/// User and password. They are never shown, so there is no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user; `None`: the default one.
    pub user: Option<Vec<u8>>,
    /// The password.
    pub password: Vec<u8>,
}

/// The server's files for TLS.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Our certificate, and those between it and the authority; empty: none.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The password of the key; empty: none.
    pub key_password: Vec<u8>,
    /// Certificates of authorities; empty: none.
    pub authorities: String,
    /// A directory with such files; empty: none.
    pub authorities_dir: String,
}
