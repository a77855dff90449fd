//! Replies as servers send them, and what they become.

use std::time::Duration;

use redis::Value;

use super::*;
use crate::calls;
use crate::id::RegistrationId;
use crate::options::SessionQuery;

const ID: &str = "0000000000000000000000000000000000000000-7";

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}

fn row(fields: &[(&str, Value)]) -> Value {
    Value::Array(fields.iter().flat_map(|(name, value)| [bulk(name), value.clone()]).collect())
}

fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(name, value)| (bulk(name), value.clone())).collect())
}

fn registration(reader: &str, args: &[(&str, Value)]) -> Value {
    let data = [
        ("mode", bulk("async")),
        ("numTriggered", Value::Int(3)),
        ("numSuccess", Value::Int(1)),
        ("numFailures", Value::Int(1)),
        ("numAborted", Value::Int(1)),
        ("lastRunDurationMS", Value::Int(2)),
        ("avgRunDurationMS", bulk("1.5")),
        ("lastError", Value::Nil),
        ("args", row(args)),
        ("of a newer server", Value::Int(1)),
    ];
    row(&[
        ("id", bulk(ID)),
        ("reader", bulk(reader)),
        ("desc", Value::Nil),
        ("RegistrationData", row(&data)),
        ("PD", bulk("{}")),
    ])
}

#[test]
fn a_registration_has_its_statistics_and_its_source() {
    let keys = [("regex", bulk("k:*")), ("eventTypes", Value::Array(vec![bulk("set")])), ("keyTypes", Value::Nil)];
    let stream = [
        ("batchSize", Value::Int(2)),
        ("durationMS", Value::Int(0)),
        ("stream", bulk("s:*")),
        ("trimStream", Value::Int(1)),
        ("onFailedPolicy", bulk("retry")),
        ("retryInterval", Value::Int(5)),
    ];
    let command = [("trigger", bulk("greet")), ("inorder", Value::Int(0))];
    let rows = [
        registration("KeysReader", &keys),
        registration("StreamReader", &stream),
        registration("CommandReader", &command),
        registration("NewReader", &[]),
    ];
    let found = calls::rg_dump_registrations().finish(Ok(Value::Array(rows.to_vec()))).unwrap();
    let first = &found[0];
    assert_eq!(
        (first.id.to_string().as_str(), first.description.as_ref(), first.triggered, first.succeeded),
        (ID, None, 3, 1)
    );
    assert_eq!((first.last_run, first.mean_run), (Some(Duration::from_millis(2)), Some(Duration::from_micros(1500))));
    assert_eq!((first.total_run, first.last_error.as_ref()), (None, None));
    let sources: Vec<_> = found.iter().map(|registration| registration.source.clone()).collect();
    let expected = [
        EventSource::Keys {
            pattern: "k:*".into(),
            event_types: Some(vec!["set".into()]),
            key_types: None,
            commands: None,
        },
        EventSource::Stream {
            pattern: "s:*".into(),
            batch: 2,
            duration: None,
            trims: true,
            on_failure: "retry".into(),
            retry_pause: Duration::from_secs(5),
        },
        EventSource::Command { trigger: "greet".into(), in_order: false },
        EventSource::Other,
    ];
    assert_eq!(sources, expected);
    assert_eq!(found[2].trigger(), Some("greet"));
}

#[test]
fn executions_of_several_shards_are_listed_once() {
    let execution =
        |state: &str| row(&[("executionId", bulk(ID)), ("status", bulk(state)), ("registered", Value::Int(1))]);
    let reply = Value::Array(vec![execution("running"), execution("pending_run")]);
    let found = calls::rg_dump_executions().finish(Ok(reply)).unwrap();
    assert_eq!((found.len(), &found[0].state, found[0].registered), (1, &ExecutionState::Running, true));
    assert_eq!(ExecutionState::from_name("pending_run".into()), ExecutionState::Other("pending_run".into()));
    for state in [ExecutionState::Created, ExecutionState::Running, ExecutionState::Done, ExecutionState::Aborted] {
        assert_eq!(ExecutionState::from_name(state.name().to_owned()), state);
    }
}

#[test]
fn an_execution_has_its_plan_on_each_shard() {
    let step = row(&[("type", bulk("map")), ("duration", Value::Int(4)), ("name", bulk("f")), ("arg", bulk(""))]);
    let plan = row(&[
        ("status", bulk("running")),
        ("shards_received", Value::Int(0)),
        ("results", Value::Int(-1)),
        ("errors", Value::Array(vec![bulk("WORKERDIED worker 1")])),
        ("total_duration", Value::Int(9)),
        ("read_duration", Value::Int(3)),
        ("steps", Value::Array(vec![step])),
    ]);
    let id = ID.parse().unwrap();
    let reply = Value::Array(vec![row(&[("shard_id", bulk("aa")), ("execution_plan", plan)])]);
    let found = calls::rg_get_execution(&id, None).finish(Ok(reply)).unwrap();
    let ShardExecution { shard, plan } = &found[0];
    assert_eq!((shard.as_str(), plan.results, plan.errors[0].text()), ("aa", None, "WORKERDIED worker 1"));
    assert_eq!((plan.total_time, plan.read_time), (Duration::from_millis(9), Duration::from_millis(3)));
    assert_eq!((plan.steps[0].kind.as_str(), plan.steps[0].time), ("map", Duration::from_millis(4)));
}

#[test]
fn a_session_has_names_or_rows() {
    let requirement = row(&[
        ("Name", bulk("requests")),
        ("IsInstalled", bulk("yes")),
        ("Wheels", bulk("none yet")),
        ("Path", bulk("")),
    ]);
    let session = |requirements, registrations| {
        row(&[
            ("ID", bulk("s")),
            ("sessionDescription", Value::Nil),
            ("refCount", Value::Int(2)),
            ("linked", bulk("primary")),
            ("dead", bulk("false")),
            ("requirementInstallationNeeded", Value::Int(1)),
            ("requirements", Value::Array(requirements)),
            ("registrations", Value::Array(registrations)),
        ])
    };
    let command = registration("CommandReader", &[("trigger", bulk("t"))]);
    let rows = vec![
        session(vec![bulk("requests")], vec![bulk(ID)]),
        bulk("no such session"),
        session(vec![requirement], vec![command]),
    ];
    let found = calls::rg_py_dump_sessions(&SessionQuery::all()).finish(Ok(Value::Array(rows))).unwrap();
    assert_eq!((found.len(), found[0].references, found[0].installed_requirements), (2, 2, true));
    assert_eq!(found[0].requirements, [Linked::Name("requests".to_owned())]);
    assert_eq!(found[0].registrations, [Linked::Name(ID.parse::<RegistrationId>().unwrap())]);
    let Linked::Row(requirement) = &found[1].requirements[0] else { panic!("{found:?}") };
    assert_eq!((requirement.is_installed, requirement.is_downloaded), (true, false));
    assert_eq!((requirement.wheels.len(), requirement.path.as_ref()), (0, None));
    assert!(matches!(&found[1].registrations[0], Linked::Row(row) if row.trigger() == Some("t")));
}

#[test]
fn a_requirement_is_exported_with_its_pieces() {
    let requirement =
        row(&[("Name", bulk("x")), ("Wheels", Value::Array(vec![bulk("x.whl")])), ("RefCount", Value::Int(1))]);
    let reply = Value::Array(vec![requirement, Value::Array(vec![Value::BulkString(vec![0, 0xff])])]);
    let exported = calls::rg_py_export_req("x").finish(Ok(reply)).unwrap();
    assert_eq!((exported.requirement.wheels, exported.pieces), (vec!["x.whl".to_owned()], vec![vec![0, 0xff]]));
    for wrong in [Value::Array(vec![]), Value::Array(vec![row(&[]), Value::Array(vec![Value::Int(1)])])] {
        assert!(calls::rg_py_export_req("x").finish(Ok(wrong)).is_err());
    }
}

#[test]
fn statistics_of_shards_are_added() {
    let shard = |bytes| {
        row(&[
            ("TotalAllocated", Value::Int(bytes)),
            ("PeakAllocated", Value::Int(bytes)),
            ("CurrAllocated", Value::Int(1)),
        ])
    };
    let one = calls::rg_py_stats().finish(Ok(shard(5))).unwrap();
    assert_eq!(one, PyStats { total_bytes: 5, peak_bytes: 5, current_bytes: 1 });
    let all = calls::rg_py_stats().finish(Ok(map(&[("a:1", shard(5)), ("b:1", shard(6))]))).unwrap();
    assert_eq!(all, PyStats { total_bytes: 11, peak_bytes: 11, current_bytes: 2 });
    // A server that answers a map, and not a cluster.
    let map =
        map(&[("TotalAllocated", Value::Int(5)), ("PeakAllocated", Value::Int(5)), ("CurrAllocated", Value::Int(1))]);
    assert_eq!(calls::rg_py_stats().finish(Ok(map)).unwrap(), one);
}

#[test]
fn a_cluster_has_its_shards() {
    let shard = row(&[
        ("id", bulk("aa")),
        ("ip", bulk("10.0.0.1")),
        ("port", Value::Int(7000)),
        ("unixSocket", bulk("None")),
        ("maxHslot", Value::Int(16383)),
    ]);
    let head = [bulk("MyId"), bulk("aa"), bulk("MyRunId"), bulk("bb")];
    let unnamed = Value::Array(head.iter().cloned().chain([Value::Array(vec![shard.clone()])]).collect());
    let named = map(&[("MyId", bulk("aa")), ("MyRunId", bulk("bb")), ("shards", Value::Array(vec![shard]))]);
    for reply in [unnamed, named] {
        let cluster = calls::rg_info_cluster().finish(Ok(reply)).unwrap().unwrap();
        assert_eq!((cluster.my_id.as_str(), cluster.my_run_id.as_deref(), cluster.shards.len()), ("aa", Some("bb"), 1));
        let shard = &cluster.shards[0];
        assert_eq!(
            (shard.port, shard.last_slot, shard.unix_socket.as_ref(), shard.run_id.as_ref()),
            (7000, 16383, None, None)
        );
    }
    assert_eq!(calls::rg_info_cluster().finish(Ok(bulk("no cluster mode"))).unwrap(), None);
    assert!(calls::rg_info_cluster().finish(Ok(row(&[("MyId", bulk("aa"))]))).is_err());
}

#[test]
fn statistics_of_profiles_name_their_shards() {
    let texts = map(&[("a:1", bulk("one")), ("b:1", bulk("two"))]);
    assert_eq!(calls::rg_py_profile_stats("s", None).finish(Ok(texts)).unwrap(), "a:1\none\nb:1\ntwo");
    assert_eq!(calls::rg_py_profile_stats("s", None).finish(Ok(bulk("one"))).unwrap(), "one");
}

#[test]
fn replies_of_another_kind_are_errors_and_never_panics() {
    let values = [
        Value::Nil,
        Value::Int(-7),
        bulk("x"),
        Value::Array(vec![Value::Int(1)]),
        Value::Array(vec![Value::Array(vec![Value::Nil, Value::Nil, Value::Nil])]),
        Value::Map(vec![(Value::Nil, Value::Nil)]),
        Value::Boolean(true),
        Value::Double(f64::NAN),
    ];
    let id = ID.parse().unwrap();
    for value in values {
        let reply = || Ok(value.clone());
        assert!(calls::rg_dump_registrations().finish(reply()).is_err(), "{value:?}");
        assert!(calls::rg_dump_executions().finish(reply()).is_err(), "{value:?}");
        assert!(calls::rg_get_execution(&id, None).finish(reply()).is_err(), "{value:?}");
        assert!(calls::rg_get_results(&id).finish(reply()).is_err(), "{value:?}");
        assert!(calls::rg_py_export_req("x").finish(reply()).is_err(), "{value:?}");
        assert!(calls::rg_network_test().finish(reply()).is_err(), "{value:?}");
        let _ = calls::rg_py_dump_sessions(&SessionQuery::all()).finish(reply());
        let _ = calls::rg_py_stats().finish(reply());
        let _ = calls::rg_trigger("x", "y").finish(reply());
    }
}

#[test]
fn plain_results_are_texts_and_bytes() {
    let reply =
        || Ok(Value::Array(vec![Value::Array(vec![bulk("7"), Value::Array(vec![bulk("x")])]), Value::Array(vec![])]));
    let call = crate::PyExecute::script(b"GB()\xff".as_slice()).plain_results().call();
    let packed = call.request().command.get_packed_command();
    assert!(packed.starts_with(b"*2\r\n$12\r\nRG.PYEXECUTE\r\n$5\r\nGB()\xff"), "{packed:?}");
    let records = call.finish(reply()).unwrap().into_results().records;
    assert_eq!(records[0].get::<String>().unwrap(), "7");
    assert_eq!(records[0].get::<u8>().unwrap(), 7);
    assert_eq!(records[1].get::<Vec<String>>().unwrap(), ["x"]);
    // These are no tagged values.
    assert!(crate::PyExecute::script("GB()").call().finish(reply()).is_err());
}
