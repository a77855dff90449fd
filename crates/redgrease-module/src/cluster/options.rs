//! What the server's options and ours say about links.

use std::collections::BTreeMap;

use redgrease_engine::cluster::topology::Address;
use redgrease_ffi::CallOptions;

use super::target::{Credentials, Target, TlsFiles};
use crate::driver::Driver;

/// The server's options that links depend on.
const OPTIONS: [&str; 11] = [
    "masteruser",
    "masterauth",
    "tls-cluster",
    "tls-cert-file",
    "tls-key-file",
    "tls-key-file-pass",
    "tls-client-cert-file",
    "tls-client-key-file",
    "tls-client-key-file-pass",
    "tls-ca-cert-file",
    "tls-ca-cert-dir",
];

/// A link to an address, with what the server's options and ours say now.
pub fn target(driver: &Driver, address: Address) -> Target {
    let options = options(driver);
    let (user, password) = driver.ask(|engine| {
        let config = engine.config();
        (config.cluster_user.clone().into_bytes(), config.cluster_password.clone().into_bytes())
    });
    let credentials = credentials(&address, (user, password), &options);
    let tls = (address.unix_socket.is_none() && options.is("tls-cluster", b"yes")).then(|| tls_files(&options));
    Target { address, credentials, tls }
}

/// Values of the server's options by name. A server without TLS lacks some.
#[derive(Default)]
struct Options(BTreeMap<String, Vec<u8>>);

impl Options {
    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.bytes(name)).into_owned()
    }

    fn is(&self, name: &str, value: &[u8]) -> bool {
        self.0.get(name).is_some_and(|found| found == value)
    }
}

fn options(driver: &Driver) -> Options {
    let mut argv: Vec<&[u8]> = vec![b"config", b"get"];
    argv.extend(OPTIONS.map(str::as_bytes));
    let Ok(reply) = driver.server.call(&argv, CallOptions::default()) else { return Options::default() };
    let words: Vec<&[u8]> = reply.view().elements().map(|word| word.bytes()).collect();
    let pairs = words.chunks_exact(2);
    Options(pairs.map(|pair| (String::from_utf8_lossy(pair[0]).into_owned(), pair[1].to_vec())).collect())
}

/// The password of a pushed topology, or else of our settings, or else what the server tells its master.
fn credentials(address: &Address, own: (Vec<u8>, Vec<u8>), options: &Options) -> Option<Credentials> {
    let (user, password) = own;
    let of = |user: Vec<u8>, password: Vec<u8>| Credentials { user: (!user.is_empty()).then_some(user), password };
    match &address.password {
        Some(password) if !password.is_empty() => Some(of(Vec::new(), password.clone())),
        _ if !user.is_empty() || !password.is_empty() => Some(of(user, password)),
        _ => {
            let password = options.bytes("masterauth");
            (!password.is_empty()).then(|| of(options.bytes("masteruser"), password))
        }
    }
}

/// The files that the server uses for connections that it opens: those of a client if it has any.
fn tls_files(options: &Options) -> TlsFiles {
    let own = if options.text("tls-client-cert-file").is_empty() { "tls" } else { "tls-client" };
    TlsFiles {
        certificate: options.text(&format!("{own}-cert-file")),
        key: options.text(&format!("{own}-key-file")),
        key_password: options.bytes(&format!("{own}-key-file-pass")),
        authorities: options.text("tls-ca-cert-file"),
        authorities_dir: options.text("tls-ca-cert-dir"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        Options(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect())
    }

    #[test]
    fn a_pushed_password_comes_before_our_settings_and_those_before_the_servers() {
        let server = options(&[("masteruser", "repl"), ("masterauth", "m")]);
        let found = |pushed: Option<&str>, user: &str, password: &str, options: &Options| {
            let password_of_push = pushed.map(|text| text.as_bytes().to_vec());
            let address = Address { host: String::new(), port: 1, unix_socket: None, password: password_of_push };
            let own = (user.as_bytes().to_vec(), password.as_bytes().to_vec());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            credentials(&address, own, options).map(|found| (found.user.map(|u| text(&u)), text(&found.password)))
        };
        let some = |user: Option<&str>, password: &str| Some((user.map(str::to_owned), password.to_owned()));
        assert_eq!(found(Some("p"), "u", "c", &server), some(None, "p"));
        assert_eq!(found(Some(""), "u", "c", &server), some(Some("u"), "c"));
        assert_eq!(found(None, "", "c", &server), some(None, "c"));
        assert_eq!(found(None, "u", "", &server), some(Some("u"), ""));
        assert_eq!(found(None, "", "", &server), some(Some("repl"), "m"));
        // As the server: it does not authenticate towards its master without a password.
        assert_eq!(found(None, "", "", &options(&[("masteruser", "repl"), ("masterauth", "")])), None);
        assert_eq!(found(None, "", "", &options(&[])), None);
    }

    #[test]
    fn the_certificate_for_outgoing_connections_is_preferred() {
        let mut pairs = vec![("tls-cert-file", "s.pem"), ("tls-key-file", "s.key"), ("tls-key-file-pass", "sp")];
        let files = tls_files(&options(&pairs));
        assert_eq!((&*files.certificate, &*files.key, &*files.key_password), ("s.pem", "s.key", &b"sp"[..]));
        pairs.extend([("tls-client-cert-file", "c.pem"), ("tls-client-key-file", "c.key")]);
        let files = tls_files(&options(&pairs));
        assert_eq!((&*files.certificate, &*files.key, &*files.key_password), ("c.pem", "c.key", &b""[..]));
    }
}
