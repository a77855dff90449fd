//! The client and real servers. `tests/e2e/test_rust_client.py` starts the servers and runs these tests, one after the other.
//!
//! - `REDGREASE_URL`: a server with the module, without keys and registrations;
//! - `REDGREASE_BARE_URL`: a server without the module;
//! - `REDGREASE_CLUSTER_URLS`: nodes of a cluster, separated by commas;
//! - `REDGREASE_TLS_URL`: a server with the module and TLS.

mod asynchronous;
mod commands;
mod failures;
mod functions;
mod in_a_cluster;
mod over_tls;

use redgrease::Client;

/// The value of a variable that the tests are given.
fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/e2e/test_rust_client.py"))
}

/// The server with the module.
fn client() -> Client {
    Client::connect(&given("REDGREASE_URL")).unwrap()
}

/// The server with the module, with this key set to a number for each of these.
fn client_with(prefix: &str, numbers: std::ops::Range<i64>) -> Client {
    let mut client = client();
    for number in numbers {
        redis::Commands::set::<_, _, ()>(&mut client, format!("{prefix}:{number}"), number).unwrap();
    }
    client
}

use redgrease::redis;
