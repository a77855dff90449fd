//! Failures of links, classified.

use std::io;

use redgrease_engine::input::LinkFailure;

use super::wire::Unreadable;

/// Codes of errors with which a server refuses a user.
const REFUSALS: [&[u8]; 3] = [b"NOAUTH", b"NOPERM", b"WRONGPASS"];

/// The failure that an error reply means; `None`: it is about its command only.
pub fn of_reply(error: &[u8]) -> Option<LinkFailure> {
    let code = error.split(|byte| *byte == b' ').next()?;
    REFUSALS.contains(&code).then(|| LinkFailure::Authentication(String::from_utf8_lossy(error).into_owned()))
}

/// The failure of a connection that was established.
pub fn of_connection(error: &io::Error) -> LinkFailure {
    match tls_error(error) {
        Some(text) => LinkFailure::Tls(text),
        None => LinkFailure::Lost(error.to_string()),
    }
}

/// The failure that bytes mean which are not a reply.
pub fn of_bytes(unreadable: Unreadable) -> LinkFailure {
    match unreadable {
        Unreadable::Tls => LinkFailure::Tls("the other side speaks TLS, and tls-cluster is off here".to_owned()),
        Unreadable::Other(text) => LinkFailure::Protocol(text),
    }
}

/// The text of an error of TLS.
pub fn tls_error(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_by_their_code() {
        let is_refusal = |text: &[u8]| of_reply(text).is_some();
        assert!(
            is_refusal(b"NOAUTH Authentication required.") && is_refusal(b"WRONGPASS invalid") && is_refusal(b"NOPERM")
        );
        assert!(!is_refusal(b"ERR NOAUTH") && !is_refusal(b"NOPERMS x") && !is_refusal(b""));
    }

    #[test]
    fn errors_of_tls_are_told_from_others() {
        let tls = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        assert!(matches!(of_connection(&tls), LinkFailure::Tls(_)));
        assert!(matches!(of_connection(&io::ErrorKind::ConnectionReset.into()), LinkFailure::Lost(_)));
    }
}
