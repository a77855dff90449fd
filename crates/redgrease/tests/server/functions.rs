//! Functions that are built in Rust.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redgrease::redis::{Commands, Direction};
use redgrease::{
    CommandReader, Constant, Error, GearsCommands, Keyed, KeysOnlyReader, KeysReader, Mode, OnFailure, Pending,
    PythonReader, Retry, ShardsIdReader, StreamReader, py,
};
use serde::Deserialize;

use crate::{client, client_with};

#[test]
#[ignore = "needs servers"]
fn results_are_values_of_types_of_rust() {
    let mut client = client();
    let () = client.hset_multiple("user:1", &[("name", "Ada"), ("age", "36")]).unwrap();
    let () = client.hset_multiple("user:2", &[("name", "Grace"), ("age", "85"), ("rank", "admiral")]).unwrap();
    #[derive(Debug, PartialEq, Deserialize)]
    struct User {
        name: String,
        age: u8,
        rank: Option<String>,
    }
    let users = KeysReader::pattern("user:*").values();
    let mut found: Vec<User> = users.run(&mut client).unwrap();
    found.sort_by_key(|user| user.age);
    let ada = User { name: "Ada".into(), age: 36, rank: None };
    assert_eq!((found.len(), &found[0], found[1].rank.as_deref()), (2, &ada, Some("admiral")));
    let error = users.clone().map(py!("lambda user: user['name']")).run::<Vec<u8>>(&mut client).unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
    let error = users.run::<User>(&mut client).unwrap_err();
    assert!(error.what().ends_with("one result was asked for, and there are 2: ask for a Vec"), "{error}");
    assert_eq!(KeysReader::key("user:1").keys().run::<String>(&mut client).unwrap(), "user:1");
}

#[test]
#[ignore = "needs servers"]
fn each_step_does_what_it_says() {
    let mut client = client_with("n", 1..7);
    let numbers = KeysReader::pattern("n:*").values().map(py!(path "builtins:int"));
    let run = |function: &redgrease::GearFunction<KeysReader>, client: &mut redgrease::Client| {
        let mut found: Vec<i64> = function.run(client).unwrap();
        found.sort_unstable();
        found
    };
    let even = py!("lambda n: n % divisor == 0").with("divisor", 2);
    assert_eq!(run(&numbers.clone().filter(even.clone()), &mut client), [2, 4, 6]);
    assert_eq!(run(&numbers.clone().flat_map(py!("lambda n: [n] * n")).distinct(), &mut client), [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        numbers
            .clone()
            .flat_map(py!("lambda n: [n, -n]"))
            .limit(2)
            .run::<Vec<i64>>(&mut client)
            .unwrap()
            .iter()
            .sum::<i64>(),
        0
    );
    assert_eq!(numbers.clone().sort().run::<Vec<i64>>(&mut client).unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(numbers.clone().sort_descending().slice(1, 2).run::<Vec<i64>>(&mut client).unwrap(), [5, 4]);
    assert_eq!(numbers.clone().count().run::<u64>(&mut client).unwrap(), 6);
    assert_eq!(numbers.clone().filter(py!("lambda n: False")).count().run::<Option<u64>>(&mut client).unwrap(), None);
    assert_eq!(numbers.clone().mean().run::<f64>(&mut client).unwrap(), 3.5);
    assert_eq!(numbers.clone().mean_by(py!("lambda n: n * 2")).run::<f64>(&mut client).unwrap(), 7.0);
    let sum = py!(path "operator:add");
    assert_eq!(numbers.clone().aggregate(0, sum.clone(), sum).run::<i64>(&mut client).unwrap(), 21);
    assert_eq!(numbers.clone().accumulate(py!("lambda a, n: (a or 0) + n")).run::<i64>(&mut client).unwrap(), 21);
    let keyed = |function: redgrease::GearFunction<KeysReader>, client: &mut redgrease::Client| {
        let found: Vec<Keyed<i64, i64>> = function.run(client).unwrap();
        found.into_iter().map(|each| (each.key, each.value)).collect::<HashMap<_, _>>()
    };
    let parity = py!("lambda n: n % 2");
    assert_eq!(keyed(numbers.clone().count_by(parity.clone()), &mut client), HashMap::from([(0, 3), (1, 3)]));
    assert_eq!(keyed(numbers.clone().map(parity.clone()).count_equal(), &mut client), HashMap::from([(0, 3), (1, 3)]));
    let add = py!("lambda key, acc, n: acc + n");
    let sums = numbers.clone().aggregate_by(parity.clone(), 0, add.clone(), add);
    assert_eq!(keyed(sums, &mut client), HashMap::from([(0, 12), (1, 9)]));
    let reduce = py!("lambda key, acc, n: (acc or 0) + n");
    let by = [
        numbers.clone().group_by(parity.clone(), reduce.clone()),
        numbers.clone().local_group_by(parity.clone(), reduce),
        numbers.clone().batch_group_by(parity, py!("lambda key, numbers: sum(numbers)")),
    ];
    for function in by {
        assert_eq!(keyed(function, &mut client), HashMap::from([(0, 12), (1, 9)]));
    }
    let names = py!("lambda n: execute('set', f'seen:{n}', n)");
    assert_eq!(run(&numbers.repartition(py!("str")).for_each(names).collect(), &mut client), [1, 2, 3, 4, 5, 6]);
    assert_eq!(KeysOnlyReader::pattern("seen:*").count().run::<u64>(&mut client).unwrap(), 6);
}

#[test]
#[ignore = "needs servers"]
fn every_reader_reads() {
    let mut client = client_with("k", 0..2);
    let () = client.xadd("stream:1", "1-1", &[("a", "1")]).unwrap();
    let () = client.xadd("stream:1", "2-1", &[("a", "2")]).unwrap();
    let entries = StreamReader::key("stream:1").from_id("1-1").values();
    assert_eq!(entries.run::<Vec<HashMap<String, u8>>>(&mut client).unwrap(), [HashMap::from([("a".to_owned(), 2)])]);
    assert_eq!(StreamReader::pattern("stream:*").keys().run::<Vec<String>>(&mut client).unwrap().len(), 2);
    assert_eq!(
        KeysOnlyReader::pattern("k:*").scan_count(10).sort().run::<Vec<String>>(&mut client).unwrap(),
        ["k:0", "k:1"]
    );
    assert_eq!(KeysOnlyReader::key("k:1").run::<String>(&mut client).unwrap(), "k:1");
    assert_eq!(PythonReader::generator(py!("lambda: iter(range(3))")).run::<Vec<u8>>(&mut client).unwrap(), [0, 1, 2]);
    assert_eq!(ShardsIdReader::each().mode(Mode::AsyncLocal).run::<String>(&mut client).unwrap(), "1");
    let records = KeysReader::pattern("k:*").names_only();
    assert!(
        records
            .map(py!("lambda record: 'value' in record"))
            .run::<Vec<bool>>(&mut client)
            .unwrap()
            .iter()
            .all(|has| !has)
    );
}

#[test]
#[ignore = "needs servers"]
fn constants_arrive_as_what_they_are() {
    let mut client = client();
    let value = Constant::from((None::<i64>, true, 1.5, "é", Constant::bytes(*b"\xff"), vec![u64::MAX]));
    let shown = PythonReader::generator(py!("lambda: iter([repr(value)])").with("value", value));
    let expected = r"(None, True, 1.5, 'é', b'\xff', [18446744073709551615])";
    assert_eq!(shown.run::<String>(&mut client).unwrap(), expected);
}

#[test]
#[ignore = "needs servers"]
fn wrong_code_is_refused_before_anything_runs() {
    let mut client = client_with("k", 0..1);
    let wrong = [
        (py!("lambda record: record["), "SyntaxError: "),
        (py!("def f(record)\n    return 1"), "SyntaxError: "),
        (py!("missing"), "NameError: name 'missing' is not defined"),
        (py!("x = 1"), "ValueError: the statements define no function"),
        (py!("7"), "must be a function, got int: 7"),
        (py!(path "no_such_module:f"), "ModuleNotFoundError: No module named 'no_such_module'"),
        (py!(path "math:no_such_function"), "AttributeError: "),
    ];
    for (code, reason) in wrong {
        let function = KeysReader::pattern("k:*").for_each(py!("lambda record: execute('incr', 'ran')")).map(code);
        let errors = [
            function.check(&mut client).unwrap_err(),
            function.run::<Vec<String>>(&mut client).unwrap_err(),
            function.register(&mut client).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), Some("BADPLAN"));
            assert!(error.what().starts_with("BADPLAN step 2 'map'") && error.what().contains(reason), "{error}");
        }
    }
    assert!(!client.exists::<_, bool>("ran").unwrap());
    assert_eq!(client.rg_dump_registrations().unwrap(), []);
    let error = PythonReader::generator(py!("lambda: [")).run::<Vec<u8>>(&mut client).unwrap_err();
    assert!(error.what().starts_with("BADPLAN the reader: SyntaxError"), "{error}");
}

#[test]
#[ignore = "needs servers"]
fn a_failing_record_is_an_error_of_the_run() {
    let mut client = client();
    let inverse = PythonReader::generator(py!("lambda: iter([3, 0, 1])")).map(py!("lambda n: 6 // n"));
    let results = inverse.results(&mut client).unwrap();
    assert_eq!(results.records[0].get::<u8>().unwrap(), 2);
    assert_eq!(results.errors[0].exception(), Some("ZeroDivisionError"));
    let error = inverse.run::<Vec<i64>>(&mut client).unwrap_err();
    assert!(error.what().starts_with("the execution failed: ZeroDivisionError: "), "{error}");
}

#[test]
#[ignore = "needs servers"]
fn a_command_is_registered_called_and_replaced() {
    let mut client = client();
    let greet = |word: &str| {
        CommandReader::trigger("greet_rust")
            .apply(py!("lambda name: f'{word} {name}'").with("word", word))
            .session("greeting")
            .mode(Mode::AsyncLocal)
            .description("greets")
    };
    for word in ["Hello", "Hi"] {
        greet(word).register(&mut client).unwrap();
        let reply: String = client.rg_trigger("greet_rust", "Ada").unwrap().get().unwrap();
        assert_eq!(reply, format!("{word} Ada"));
    }
    let found = client.rg_dump_registrations().unwrap();
    assert_eq!((found.len(), found[0].description.as_deref()), (1, Some("greets")));
    let error = greet("Hey").session("other").register(&mut client).unwrap_err();
    let Error::Server(refusal) = &error else { panic!("{error}") };
    assert!(refusal.is_duplicate_trigger() && error.fix().is_some(), "{error}");
    let hello = CommandReader::trigger("coroutine").apply(py!("async def f(name):\n    return name * 2"));
    hello.register(&mut client).unwrap();
    assert_eq!(client.rg_trigger("coroutine", "ab").unwrap().get::<String>().unwrap(), "abab");
    for registration in client.rg_dump_registrations().unwrap() {
        client.rg_unregister(&registration.id, Pending::Abort).unwrap();
    }
}

#[test]
#[ignore = "needs servers"]
fn functions_are_registered_for_keys_and_streams() {
    let mut client = client();
    let copy = "lambda record: execute('hset', 'seen', record['key'], record['event'])";
    KeysReader::pattern("watched:*")
        .event_types(["set"])
        .key_types(["string"])
        .mode(Mode::Sync)
        .for_each(py!(copy))
        .on_registered(py!("lambda: execute('set', 'registered', 'yes')"))
        .register(&mut client)
        .unwrap();
    StreamReader::key("watched_stream")
        .batch(2)
        .on_failure(OnFailure::RetryAfter(Duration::from_secs(1)))
        .keep_entries()
        .for_each(py!("lambda record: execute('rpush', 'entries', record['id'])"))
        .register(&mut client)
        .unwrap();
    for id in ["1-1", "2-1"] {
        let () = client.xadd("watched_stream", id, &[("a", 1)]).unwrap();
    }
    // It comes when both entries were read.
    let second = client.blmove::<_, _, Option<String>>("entries", "last", Direction::Right, Direction::Right, 20.0);
    assert!(second.unwrap().is_some());
    let () = client.set("watched:1", 1).unwrap();
    let () = client.hset("watched:2", "a", 1).unwrap();
    let seen: HashMap<String, String> = client.hgetall("seen").unwrap();
    assert_eq!(seen, HashMap::from([("watched:1".to_owned(), "set".to_owned())]));
    let error = KeysReader::pattern("k").event_types(["no_such_event"]).register(&mut client).unwrap_err();
    assert_eq!(error.code(), Some("BADEVENT"));
    let error = StreamReader::key("s").batch(0).register(&mut client).unwrap_err();
    assert_eq!(error.code(), Some("BADPLAN"));
    for registration in client.rg_dump_registrations().unwrap() {
        client.rg_unregister(&registration.id, Pending::Abort).unwrap();
    }
}

#[test]
#[ignore = "needs servers"]
fn a_registered_function_is_built_again_when_its_worker_dies() {
    let mut client = client();
    let pid = py!("
        import os

        def f(what):
            if what == 'die':
                os.kill(os.getpid(), 9)
            return os.getpid()
        ");
    CommandReader::trigger("pid_rust").apply(pid).register(&mut client).unwrap();
    let before: u32 = client.rg_trigger("pid_rust", "live").unwrap().get().unwrap();
    let error = client.rg_trigger("pid_rust", "die").unwrap_err();
    assert_eq!((error.code(), error.retry()), (Some("WORKERDIED"), Retry::Later));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match client.rg_trigger("pid_rust", "live") {
            Ok(results) => {
                let after: u32 = results.get().unwrap();
                if after != before {
                    break;
                }
            }
            Err(error) => assert_eq!(error.retry(), Retry::Later, "{error}"),
        }
        assert!(Instant::now() < deadline, "the function still runs in process {before}");
        std::thread::yield_now();
    }
    for registration in client.rg_dump_registrations().unwrap() {
        client.rg_unregister(&registration.id, Pending::Abort).unwrap();
    }
}
