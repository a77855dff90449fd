//! Every command, and what its reply becomes.

use std::collections::HashMap;
use std::time::Duration;

use redgrease::{
    EventSource, Executed, ExecutionState, GearsCommands, Linked, Locality, NO_ARGUMENTS, Pending, PyExecute, Record,
    Results, SessionQuery, watch,
};

use crate::{client, client_with};

#[test]
#[ignore = "needs servers"]
fn a_script_runs_registers_or_does_neither() {
    let mut client = client_with("script", 0..3);
    let count = client.rg_py_execute(PyExecute::script("GB().count().run('script:*')")).unwrap();
    assert_eq!(count.into_results().get::<u64>().unwrap(), 3);
    let plain = PyExecute::script("GB().map(lambda record: record['key']).count().run('script:*')").plain_results();
    assert_eq!(client.rg_py_execute(plain).unwrap().into_results().get::<String>().unwrap(), "3");
    let texts = client
        .rg_py_execute(PyExecute::script("GB('KeysOnlyReader').map(lambda key: {key: b'\\xff'}).run('script:0')"));
    let text: String = texts.unwrap().into_results().get().unwrap();
    let read = Record::from_repr(&text).unwrap().get::<HashMap<String, serde_bytes::ByteBuf>>().unwrap();
    assert_eq!(read["script:0"].as_slice(), b"\xff");
    let error = client.rg_py_execute(PyExecute::script(b"x = '\xff'".as_slice())).unwrap_err();
    assert!(error.what().contains("SyntaxError") && error.what().contains("0xff"), "{error}");
    assert_eq!(client.rg_py_execute(PyExecute::script("x = 1")).unwrap(), Executed::Nothing);
    let started = client.rg_py_execute(PyExecute::script("GB().run('script:*')").unblocking()).unwrap();
    let Executed::Started(id) = started else { panic!("{started:?}") };
    assert_eq!(client.rg_get_results_blocking(&id).unwrap().records.len(), 3);
    assert_eq!(client.rg_get_results(&id).unwrap().records.len(), 3);
    client.rg_drop_execution(&id).unwrap();
}

#[test]
#[ignore = "needs servers"]
fn executions_are_listed_shown_and_dropped() {
    let mut client = client_with("shown", 0..1);
    let values = client.rg_config_set(&[("ProfileExecutions", "1"), ("MaxWorkers", "many")]).unwrap();
    assert!(values[0].is_ok() && values[1].is_err(), "{values:?}");
    let script = "GB().map(lambda record: 1 / 0).run('shown:*')";
    let started = client.rg_py_execute(PyExecute::script(script).unblocking()).unwrap();
    let Executed::Started(id) = started else { panic!("{started:?}") };
    let Results { records, errors, .. } = client.rg_get_results_blocking(&id).unwrap();
    assert_eq!((records.len(), errors[0].exception()), (0, Some("ZeroDivisionError")));
    let shards = client.rg_get_execution(&id, Some(Locality::Shard)).unwrap();
    let plan = &shards[0].plan;
    assert_eq!((&plan.state, plan.results), (&ExecutionState::Done, Some(0)));
    assert_eq!(plan.errors[0].message(), "division by zero");
    assert!(plan.steps.iter().any(|step| step.kind == "map" && step.name == "map"), "{:?}", plan.steps);
    let listed = client.rg_dump_executions().unwrap();
    assert!(listed.iter().any(|execution| execution.id == id && !execution.registered), "{listed:?}");
    let states = watch(&mut client, Some(&id), Duration::ZERO).collect::<redgrease::Result<Vec<_>>>().unwrap();
    assert_eq!(states.last().unwrap().state, ExecutionState::Done);
    client.rg_drop_execution(&id).unwrap();
    let error = client.rg_abort_execution(&id).unwrap_err();
    assert_eq!(error.what(), "execution does not exist");
    assert_eq!(client.rg_config_get(&["ProfileExecutions"]).unwrap()[0].as_deref().unwrap(), "1");
    client.rg_config_set(&[("ProfileExecutions", "0")]).unwrap();
}

#[test]
#[ignore = "needs servers"]
fn registrations_and_sessions_are_listed_with_all_that_they_are() {
    let mut client = client();
    let script = "GB('CommandReader').register(trigger='listed', mode='sync')\n\
                  GB('StreamReader', desc='two').register('st:*', batch=3, duration=50, onFailedPolicy='retry')\n\
                  GB().register('k:*', eventTypes=['set'], keyTypes=['string'])";
    client.rg_py_execute(PyExecute::script(script).id("listed").description("three")).unwrap();
    let found = client.rg_dump_registrations().unwrap();
    let [command, stream, keys] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((command.trigger(), command.mode.as_str(), command.triggered), (Some("listed"), "sync", 0));
    assert_eq!((stream.description.as_deref(), stream.status.as_deref()), (Some("two"), Some("OK")));
    let EventSource::Stream { pattern, batch, duration, trims, on_failure, .. } = &stream.source else { panic!() };
    assert_eq!((pattern.as_str(), *batch, *trims, on_failure.as_str()), ("st:*", 3, true, "retry"));
    assert_eq!(*duration, Some(Duration::from_millis(50)));
    let EventSource::Keys { pattern, event_types, key_types, commands } = &keys.source else { panic!() };
    assert_eq!((pattern.as_str(), commands), ("k:*", &None));
    assert_eq!(
        (event_types.as_deref().unwrap(), key_types.as_deref().unwrap()),
        (&["set".into()][..], &["string".into()][..])
    );

    client.rg_trigger("listed", "x").unwrap();
    assert_eq!(client.rg_dump_registrations().unwrap()[0].succeeded, 1);
    client.rg_clear_registrations_stats().unwrap();
    assert_eq!(client.rg_dump_registrations().unwrap()[0].succeeded, 0);
    client.rg_pause_registrations(std::slice::from_ref(&stream.id), Pending::Abort).unwrap();
    assert_eq!(client.rg_dump_registrations().unwrap()[1].status.as_deref(), Some("PAUSED"));
    client.rg_unpause_registrations(std::slice::from_ref(&stream.id)).unwrap();

    let sessions = client.rg_py_dump_sessions(&SessionQuery::of(["listed", "none"])).unwrap();
    assert_eq!((sessions.len(), sessions[0].description.as_deref()), (1, Some("three")));
    assert_eq!(sessions[0].registrations[0], Linked::Name(command.id.clone()));
    let sessions = client.rg_py_dump_sessions(&SessionQuery::all().verbose()).unwrap();
    assert!(matches!(&sessions[0].registrations[2], Linked::Row(row) if row.id == keys.id), "{sessions:?}");
    assert_eq!(client.rg_py_dump_sessions(&SessionQuery::all().dead()).unwrap(), []);

    for registration in &found {
        client.rg_unregister(&registration.id, Pending::Run).unwrap();
    }
    assert_eq!(client.rg_dump_registrations().unwrap(), []);
}

#[test]
#[ignore = "needs servers"]
fn a_trigger_answers_what_its_function_made() {
    let mut client = client();
    let script = "GB('CommandReader').map(lambda call: call[1:]).register(trigger='rust_echo', convertToStr=False)";
    client.rg_py_execute(PyExecute::script(script)).unwrap();
    let echo = client.rg_trigger("rust_echo", ("a", 1, b"\xff".as_slice())).unwrap();
    let (text, number, bytes): (String, u8, Vec<u8>) = echo.get().unwrap();
    assert_eq!((text.as_str(), number, bytes), ("a", 1, vec![0xff]));
    let none: Vec<Vec<String>> = client.rg_trigger("rust_echo", NO_ARGUMENTS).unwrap().get().unwrap();
    assert_eq!(none, [[""; 0]]);
    let key: Vec<Vec<String>> = client.rg_trigger_on_key("rust_echo", "k", &[1, 2]).unwrap().get().unwrap();
    assert_eq!(key, [["k", "1", "2"]]);
    for registration in client.rg_dump_registrations().unwrap() {
        client.rg_unregister(&registration.id, Pending::Abort).unwrap();
    }
}

#[test]
#[ignore = "needs servers"]
fn what_the_server_says_of_itself_is_read() {
    let mut client = client_with("one", 0..1);
    client.rg_py_execute(PyExecute::script("GB().map(lambda record: 1).run('one:*')")).unwrap();
    assert!(client.rg_py_stats().unwrap().current_bytes > 0);
    assert_eq!(client.rg_dump_plugins().unwrap()[0].name, "GearsPythonPlugin");
    assert_eq!(client.rg_info_cluster().unwrap(), None);
    // The server may have requirements of others.
    assert!(client.rg_py_dump_reqs().unwrap().iter().all(|requirement| !requirement.name.is_empty()));
    client.rg_refresh_cluster().unwrap();
    client.rg_network_test().unwrap();
    client.rg_administer().unwrap();
    let values = client.rg_config_get(&["MaxWorkers", "NoSuchKey"]).unwrap();
    assert!(values[0].is_ok() && values[1].is_err(), "{values:?}");
}
