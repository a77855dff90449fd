//! TLS with the server's own files. As between servers, the certificate of the other side must be signed by a known authority,
//! and its name does not matter.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pkcs8::der::pem::PemLabel;
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::cluster::target::TlsFiles;

/// Longest file with certificates or a key.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What was read from the files, until one of them changes.
#[derive(Default)]
pub struct TlsConfigs(Mutex<Option<Kept>>);

struct Kept {
    files: TlsFiles,
    stamps: Vec<Stamp>,
    config: Arc<ClientConfig>,
}

/// Time and length of a file; `None` if it cannot be read.
type Stamp = Option<(SystemTime, u64)>;

impl TlsConfigs {
    /// The configuration that the files describe.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be; the text names it.
    pub fn get(&self, files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
        let stamps: Vec<Stamp> =
            [&files.certificate, &files.key, &files.authorities, &files.authorities_dir].map(|path| stamp(path)).into();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*kept
            && kept.files == *files
            && kept.stamps == stamps
        {
            return Ok(Arc::clone(&kept.config));
        }
        let config = Arc::new(config(files)?);
        *kept = Some(Kept { files: files.clone(), stamps, config: Arc::clone(&config) });
        Ok(config)
    }
}

fn stamp(path: &str) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn config(files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(SignedByAuthority {
        authorities: authorities(files)?,
        algorithms: provider.signature_verification_algorithms,
    });
    let builder = ClientConfig::builder_with_provider(CryptoProvider::clone(&provider).into())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = if files.certificate.is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = certificates(&files.certificate)?;
        let key = private_key(&files.key, &files.key_password)?;
        builder.with_client_auth_cert(chain, key).map_err(|error| format!("{}: {error}", files.key))?
    };
    // Links are opened rarely.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn authorities(files: &TlsFiles) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    if !files.authorities.is_empty() {
        let (_, _) = store.add_parsable_certificates(certificates(&files.authorities)?);
    }
    if !files.authorities_dir.is_empty() {
        let dir = &files.authorities_dir;
        for entry in fs::read_dir(dir).map_err(|error| format!("tls-ca-cert-dir {dir}: {error}"))? {
            // As for the server, what is no certificate does not matter here.
            let path = entry.map_err(|error| format!("tls-ca-cert-dir {dir}: {error}"))?.path();
            let found = path.to_str().and_then(|path| certificates(path).ok());
            store.add_parsable_certificates(found.unwrap_or_default());
        }
    }
    if store.is_empty() {
        return Err("there is no certificate of an authority in tls-ca-cert-file or tls-ca-cert-dir".to_owned());
    }
    Ok(store)
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let checked = || -> io::Result<Vec<u8>> {
        if fs::metadata(Path::new(path))?.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
        }
        fs::read(path)
    };
    checked().map_err(|error| format!("{path}: {error}"))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{path}: there is no certificate in it")),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

fn private_key(path: &str, password: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    if let Some(start) = text.find(&format!("-----BEGIN {}", EncryptedPrivateKeyInfoRef::PEM_LABEL)) {
        return decrypt(&text[start..], password)
            .map_err(|error| format!("{path}: the key cannot be decrypted: {error}"));
    }
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(format!("{path}: the key is encrypted in an old form: convert it with openssl pkcs8 -topk8"));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| format!("{path}: {error}"))
}

fn decrypt(pem: &str, password: &[u8]) -> Result<PrivateKeyDer<'static>, pkcs8::Error> {
    let (_, document) = SecretDocument::from_pem(pem)?;
    let key = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())?.decrypt(password)?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec())))
}

/// Accepts certificates of these authorities, whatever names they have.
#[derive(Debug)]
struct SignedByAuthority {
    authorities: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SignedByAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.authorities,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
