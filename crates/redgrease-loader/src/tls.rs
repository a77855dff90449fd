//! Why no encrypted connection was made, and the fix.

use std::sync::Arc;

use redis::RedisError;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Whether a file in PEM format holds authorities to trust; if not, what is wrong with it, as the end of a sentence.
pub fn check_authorities(pem: &[u8]) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("cannot be read: {error:?}"))?;
        store.add(certificate).map_err(|error| format!("has a certificate that cannot be used: {error}"))?;
    }
    if store.is_empty() { Err("has no certificate in PEM format".to_owned()) } else { Ok(()) }
}

/// The error of the TLS library behind an error of a connection.
pub fn error_behind(error: &RedisError) -> Option<&rustls::Error> {
    let source = std::error::Error::source(error)?;
    // redis-rs shares the errors of the layers below.
    let shared = source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>();
    let mut cause = shared.map_or(source, |shared| &**shared);
    loop {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        // An I/O error does not count what it wraps as its source.
        cause = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => inner,
            None => cause.source()?,
        };
    }
}

/// How to fix it.
pub fn fix(reason: &rustls::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    match reason {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "name the certificate of the authority that signed the server's with --cacert FILE"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "name the server with --server as its certificate does",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "renew the certificate of the server, and check the clock of this machine"
        }
        Error::InvalidMessage(_) => {
            "this port does not speak TLS: connect without --tls, or name the server's tls-port"
        }
        Error::AlertReceived(_) => {
            "the server refused: if it asks for client certificates, set tls-auth-clients no or optional there"
        }
        _ => "check the certificate of the server, and --cacert",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_usable_certificates_is_refused() {
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        for (pem, problem) in [
            (&b""[..], "has no certificate"),
            (b"my-host\n", "has no certificate"),
            (broken, "has a certificate that cannot be used"),
            (cut, "cannot be read"),
        ] {
            let found = check_authorities(pem).unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
    }
}
