//! Connections of tokio.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use redgrease::aio::{self, AsyncGearsCommands};
use redgrease::{CommandReader, Error, ExecutionState, KeysReader, Pending, py};

use crate::{client_with, given};

#[tokio::test]
#[ignore = "needs servers"]
async fn functions_run_and_commands_are_triggered() {
    client_with("aio", 0..3);
    let mut connection = aio::connect(&given("REDGREASE_URL")).await.unwrap();
    let values = KeysReader::pattern("aio:*").values();
    values.check_async(&mut connection).await.unwrap();
    let mut found: Vec<u8> = values.run_async(&mut connection).await.unwrap();
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2]);
    let id = values.start_async(&mut connection).await.unwrap();
    assert_eq!(connection.rg_get_results_blocking(&id).await.unwrap().records.len(), 3);
    let double = CommandReader::trigger("double").apply(py!("lambda text: text * 2"));
    double.register_async(&mut connection).await.unwrap();
    assert_eq!(connection.rg_trigger("double", "ab").await.unwrap().get::<String>().unwrap(), "abab");
    for registration in connection.rg_dump_registrations().await.unwrap() {
        connection.rg_unregister(&registration.id, Pending::Run).await.unwrap();
    }
    connection.rg_drop_execution(&id).await.unwrap();
}

#[tokio::test]
#[ignore = "needs servers"]
async fn the_states_of_an_execution_are_a_stream() {
    client_with("states", 0..1);
    let mut connection = aio::connect(&given("REDGREASE_URL")).await.unwrap();
    let waits = KeysReader::pattern("states:*").map(py!("def f(record):\n    import time\n    time.sleep(0.1)"));
    let id = waits.start_async(&mut connection).await.unwrap();
    let mut watching = connection.clone();
    let states = aio::watch(&mut watching, Some(&id), Duration::from_millis(10));
    let seen: Vec<ExecutionState> = states.map_ok(|execution| execution.state).try_collect().await.unwrap();
    assert_eq!(seen.last(), Some(&ExecutionState::Done));
    let all = aio::watch(&mut watching, None, Duration::from_millis(10));
    let first = std::pin::pin!(all).next().await.unwrap().unwrap();
    assert_eq!((&first.id, first.registered), (&id, false));
    connection.rg_drop_execution(&id).await.unwrap();
}

#[tokio::test]
#[ignore = "needs servers"]
async fn failures_are_those_of_blocking_connections() {
    let error = aio::connect("redis://127.0.0.1:1").await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let error = aio::connect(&given("REDGREASE_URL").replace("redis://", "rediss://")).await.err().unwrap();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let mut bare = aio::connect(&given("REDGREASE_BARE_URL")).await.unwrap();
    let error = bare.rg_dump_executions().await.unwrap_err();
    assert!(matches!(error, Error::NoModule { .. }), "{error:?}");
}
