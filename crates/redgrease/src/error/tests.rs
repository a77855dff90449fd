use redis::{RedisError, Value};

use super::*;

fn of_text(text: &str) -> Error {
    Error::of_text(text, "RG.PYEXECUTE")
}

/// The error of a reply on the wire.
fn of_reply(reply: &str) -> Error {
    match redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()) {
        Ok(Value::ServerError(error)) => Error::of_command(error.into(), "RG.PYEXECUTE"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_text_of_an_error_is_what_the_server_sent() {
    let table = [
        ("ERR unknown execution", "unknown execution"),
        ("execution plan does not exist", "execution plan does not exist"),
        ("WORKERDIED worker 3 has ended", "WORKERDIED worker 3 has ended"),
        ("READONLY ask the master", "READONLY ask the master"),
        ("ERR", ""),
    ];
    for (reply, text) in table {
        let Error::Server(error) = of_reply(reply) else { panic!("{reply}") };
        assert_eq!(error.text(), text);
    }
}

#[test]
fn errors_of_servers_have_a_kind_a_code_and_advice() {
    let server = |error: &Error| matches!(error, Error::Server(_));
    assert!(matches!(of_reply("ERR unknown command 'RG.X', with args beginning with: "), Error::NoModule { .. }));
    assert!(matches!(of_reply("ERR unknown command 'rg.x'"), Error::NoModule { .. }));
    assert!(server(&of_reply("ERR unknown command 'GET'")));
    assert!(matches!(of_reply("NOPERM no permission"), Error::NoPermission { .. }));
    assert!(matches!(of_reply("NOAUTH Authentication required."), Error::Authentication { .. }));
    let table = [
        ("WORKERDIED worker 3", Some("WORKERDIED"), Retry::Later, true),
        ("BADPLAN step 1", Some("BADPLAN"), Retry::No, true),
        ("LOADING the data", Some("LOADING"), Retry::Later, false),
        ("CLUSTERDOWN", Some("CLUSTERDOWN"), Retry::Later, false),
        ("execution plan does not exist", None, Retry::No, false),
        ("UNKNOWNCODE x", Some("UNKNOWNCODE"), Retry::No, false),
    ];
    for (text, code, retry, has_fix) in table {
        let error = of_text(text);
        assert_eq!((error.code(), error.retry(), error.fix().is_some()), (code, retry, has_fix), "{text}");
    }
}

#[test]
fn every_code_of_the_module_has_its_fix_and_its_advice() {
    for entry in error_code::CODES.iter().filter(|entry| entry.code != "NOPERM") {
        let error = of_text(&format!("{} x", entry.code));
        assert_eq!(error.fix().as_deref(), Some(entry.remedy));
        assert_eq!(error.retry() == Retry::Later, entry.retry == error_code::Retry::Later, "{}", entry.code);
    }
}

#[test]
fn errors_of_connections_say_whether_the_command_may_have_run() {
    let error = |kind| RedisError::from(io::Error::from(kind));
    for kind in [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock] {
        let timeout = Error::of_command(error(kind), "RG.X");
        assert!(matches!(timeout, Error::Timeout { .. }) && timeout.retry() == Retry::MayHaveRun, "{timeout:?}");
    }
    let broken = Error::of_command(error(io::ErrorKind::BrokenPipe), "RG.X");
    assert!(matches!(broken, Error::Disconnected { .. }) && broken.retry() == Retry::MayHaveRun, "{broken:?}");
    let refused = Error::of_connecting(error(io::ErrorKind::ConnectionRefused), "redis://x");
    assert!(matches!(refused, Error::Unreachable { .. }) && refused.retry() == Retry::Later, "{refused:?}");
    let closed = Error::of_connecting(error(io::ErrorKind::ConnectionReset), "redis://x");
    assert!(closed.fix().unwrap().contains("rediss://"), "{closed:?}");
    let cluster = (redis::ErrorKind::Io, "It failed to check startup nodes.");
    assert!(matches!(Error::of_connecting(cluster.into(), "redis://x"), Error::Unreachable { .. }));
    let tls = [
        Error::of_connecting(error(io::ErrorKind::TimedOut), "rediss://x"),
        Error::of_connecting(io::Error::new(io::ErrorKind::InvalidData, "invalid certificate").into(), "rediss://x"),
        Error::of_connecting(
            (redis::ErrorKind::InvalidClientConfig, "can't connect with TLS, the feature is not enabled").into(),
            "rediss://x",
        ),
    ];
    assert!(tls.iter().all(|error| matches!(error, Error::Tls { .. })), "{tls:?}");
    assert!(tls[2].to_string().contains("\nEnable the feature `tls`"));
}

#[test]
fn an_error_of_user_code_is_its_exception() {
    let text = r"['Traceback (most recent call last):\n', 'ValueError: too\n']";
    let error = of_text(text);
    assert_eq!((error.what().as_ref(), error.fix()), ("ValueError: too", None));
    let errors = vec![PythonError::new(text.to_owned()), PythonError::new("WORKERDIED worker".to_owned())];
    let failed = Error::Execution { errors };
    assert_eq!(failed.what(), "the execution failed with 2 errors, the first one: ValueError: too");
    assert_eq!(failed.retry(), Retry::No);
    assert_eq!(Error::Execution { errors: vec![PythonError::new("WORKERDIED w".into())] }.retry(), Retry::Later);
    let duplicate = of_text(r"['Traceback\n', 'gears.error: trigger already registered\n']");
    assert!(matches!(&duplicate, Error::Server(error) if error.is_duplicate_trigger()) && duplicate.fix().is_some());
    assert!(format!("{duplicate:?}").starts_with("Server: gears.error: trigger already registered\nUnregister"));
}
