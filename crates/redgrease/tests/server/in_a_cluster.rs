//! Connections to a cluster.

use redgrease::redis::Commands;
use redgrease::{CommandReader, Error, GearsCommands, Mode, Pending, PythonReader, ShardsIdReader, cluster, py};

use crate::given;

fn addresses() -> Vec<String> {
    given("REDGREASE_CLUSTER_URLS").split(',').map(str::to_owned).collect()
}

#[test]
#[ignore = "needs servers"]
fn commands_go_to_the_shards_that_they_are_for() {
    let addresses = addresses();
    let mut connection = cluster::connect(addresses.iter().map(String::as_str)).unwrap();
    for address in &addresses {
        let mut node = redgrease::Client::connect(address).unwrap();
        let count = PythonReader::generator(py!("lambda: iter([1])")).mode(Mode::AsyncLocal);
        count.start(&mut node).unwrap();
    }
    let listed = connection.rg_dump_executions().unwrap();
    assert!(!listed.is_empty());
    let local = PythonReader::generator(py!("lambda: iter([1])")).mode(Mode::AsyncLocal);
    assert_eq!(local.run::<u8>(&mut connection).unwrap(), 1);
    assert!(connection.rg_py_stats().unwrap().current_bytes > 0);
    connection.rg_refresh_cluster().unwrap();
    let ids: Vec<String> = ShardsIdReader::each().run(&mut connection).unwrap();
    assert_eq!(ids.len(), addresses.len());
}

#[test]
#[ignore = "needs servers"]
fn a_command_of_a_key_runs_where_the_key_is() {
    let addresses = addresses();
    let mut connection = cluster::connect(addresses.iter().map(String::as_str)).unwrap();
    let get = py!("lambda key: execute('get', key)");
    CommandReader::trigger("get_here").apply(get).mode(Mode::AsyncLocal).register(&mut connection).unwrap();
    for number in 0..10 {
        let key = format!("key:{number}");
        let () = connection.set(&key, number).unwrap();
        let found: u8 = connection.rg_trigger_on_key("get_here", &key, redgrease::NO_ARGUMENTS).unwrap().get().unwrap();
        assert_eq!(found, number);
    }
    for registration in connection.rg_dump_registrations().unwrap() {
        connection.rg_unregister(&registration.id, Pending::Abort).unwrap();
    }
}

#[tokio::test]
#[ignore = "needs servers"]
async fn connections_of_tokio_do_the_same() {
    use redgrease::aio::AsyncGearsCommands;

    let addresses = addresses();
    let mut connection = cluster::connect_async(addresses.iter().map(String::as_str)).await.unwrap();
    let local = PythonReader::generator(py!("lambda: iter([1])")).mode(Mode::AsyncLocal);
    assert_eq!(local.run_async::<u8>(&mut connection).await.unwrap(), 1);
    assert!(connection.rg_py_stats().await.unwrap().current_bytes > 0);
}

#[test]
fn there_is_no_cluster() {
    let error = cluster::connect(["redis://127.0.0.1:1"]).err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().lines().count() == 2, "{error}");
}
