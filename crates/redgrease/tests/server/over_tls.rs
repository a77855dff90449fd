//! TLS; the authority of the server's certificate is that of `SSL_CERT_FILE`.

use redgrease::{Client, Error, KeysReader, aio};

use crate::given;

#[test]
#[ignore = "needs servers"]
fn a_server_with_a_known_certificate_is_used() {
    let mut client = Client::connect(&given("REDGREASE_TLS_URL")).unwrap();
    assert_eq!(KeysReader::pattern("*").count().run::<Option<u64>>(&mut client).unwrap(), None);
}

#[tokio::test]
#[ignore = "needs servers"]
async fn connections_of_tokio_do_the_same() {
    let mut connection = aio::connect(&given("REDGREASE_TLS_URL")).await.unwrap();
    assert_eq!(KeysReader::pattern("*").count().run_async::<Option<u64>>(&mut connection).await.unwrap(), None);
}

#[test]
#[ignore = "needs servers"]
fn a_certificate_for_another_name_is_refused() {
    let address = given("REDGREASE_TLS_URL").replace("localhost", "127.0.0.1");
    let error = Client::connect(&address).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }) && error.what().contains("certificate"), "{error:?}");
    assert!(error.fix().unwrap().contains("certificate"), "{error}");
}

#[test]
#[ignore = "needs servers"]
fn a_connection_without_tls_is_told_how_to_have_it() {
    let address = given("REDGREASE_TLS_URL").replace("rediss://", "redis://");
    let error = Client::connect(&address).unwrap_err();
    assert!(error.fix().unwrap().contains("rediss://"), "{error:?}");
}
