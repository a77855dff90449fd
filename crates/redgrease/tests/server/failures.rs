//! What goes wrong: a line what, a line the fix.

use std::time::Duration;

use redgrease::redis::cmd;
use redgrease::{
    Client, Error, ExecutionId, GearsCommands, NO_ARGUMENTS, Pending, PyExecute, RegistrationId, Retry, py,
};

use crate::{client, given};

fn refused(address: &str) -> Error {
    Client::connect(address).unwrap_err()
}

/// An error that has two lines.
#[track_caller]
fn assert_lines(error: &Error, what: &str, fix: &str) {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    let [first, second] = lines.as_slice() else { panic!("{text}") };
    assert!(first.contains(what) && second.contains(fix), "{text}");
}

#[test]
fn there_is_no_server() {
    let error = refused("redis://127.0.0.1:1");
    assert_lines(&error, "no server answers at redis://127.0.0.1:1: ", "redgrease serve");
    assert!(matches!(error, Error::Unreachable { .. }) && error.retry() == Retry::Later, "{error:?}");
    assert!(matches!(refused("redis://no-such-host.invalid"), Error::Unreachable { .. }));
}

#[test]
#[ignore = "needs servers"]
fn the_server_has_no_module() {
    let mut client = Client::connect(&given("REDGREASE_BARE_URL")).unwrap();
    let errors = [
        client.rg_dump_registrations().unwrap_err(),
        client.rg_py_execute(PyExecute::script("GB().run()")).unwrap_err(),
        redgrease::KeysReader::pattern("*").count().run::<u64>(&mut client).unwrap_err(),
    ];
    for error in errors {
        assert_lines(&error, "the module redgrease is not loaded", "--loadmodule");
        assert!(matches!(error, Error::NoModule { .. }) && error.retry() == Retry::No, "{error:?}");
    }
}

#[test]
#[ignore = "needs servers"]
fn the_user_has_no_permission() {
    let mut admin = client();
    let rule = ["SETUSER", "limited", "on", ">secret", "~*", "+@all", "-rg.pyexecute"];
    let () = cmd("ACL").arg(&rule).query(&mut admin).unwrap();
    let address = given("REDGREASE_URL").replace("redis://", "redis://limited:secret@");
    let mut limited = Client::connect(&address).unwrap();
    let error = limited.rg_py_execute(PyExecute::script("GB().run()")).unwrap_err();
    assert_lines(&error, "rg.pyexecute", "ACL SETUSER");
    assert_eq!((error.code(), error.retry()), (Some("NOPERM"), Retry::No));
    let error = refused(&address.replace("secret", "wrong"));
    assert_lines(&error, "the server refused the user", "redis://user:password@host:port");
    assert!(matches!(error, Error::Authentication { .. }) && !error.to_string().contains("wrong@"), "{error:?}");
    let () = cmd("ACL").arg("DELUSER").arg("limited").query(&mut admin).unwrap();
}

#[test]
#[ignore = "needs servers"]
fn the_server_has_no_tls() {
    let address = given("REDGREASE_URL").replace("redis://", "rediss://");
    let error = refused(&address);
    assert_lines(&error, &format!("no TLS connection to {address}: "), "Use redis:// if the server has no TLS");
    assert!(matches!(error, Error::Tls { .. }) && error.retry() == Retry::No, "{error:?}");
}

#[test]
#[ignore = "needs servers"]
fn what_the_server_answers_has_its_code_and_advice() {
    let mut client = client();
    let unknown: ExecutionId = "0000000000000000000000000000000000000000-999999".parse().unwrap();
    let error = client.rg_get_results(&unknown).unwrap_err();
    assert_eq!((error.code(), error.retry()), (None, Retry::No));
    let registration: RegistrationId = unknown.to_string().parse().unwrap();
    let errors = [
        client.rg_get_execution(&unknown, None).unwrap_err(),
        client.rg_abort_execution(&unknown).unwrap_err(),
        client.rg_drop_execution(&unknown).unwrap_err(),
        client.rg_unregister(&registration, Pending::Run).unwrap_err(),
        client.rg_pause_registrations(&[registration], Pending::Run).unwrap_err(),
        client.rg_trigger("unknown", NO_ARGUMENTS).unwrap_err(),
    ];
    for error in errors.iter().chain([&error]) {
        assert!(matches!(error, Error::Server(error) if error.is_not_found()), "{error:?}");
    }
    let error = client.rg_py_execute(PyExecute::script("GB().run(").id("a b")).unwrap_err();
    assert!(error.what().starts_with("ID must be"), "{error}");
    assert!(matches!(&error, Error::Server(error) if !error.is_not_found()), "{error:?}");
    let error = client.rg_py_execute(PyExecute::script("1 +")).unwrap_err();
    let Error::Server(server) = &error else { panic!("{error}") };
    assert_eq!(server.python().unwrap().exception(), Some("SyntaxError"));
    let error = client.rg_trigger("no_such_trigger", "x").unwrap_err();
    assert!(matches!(error, Error::Server(_)), "{error:?}");
}

#[test]
#[ignore = "needs servers"]
fn a_reply_that_does_not_arrive_in_time_is_a_timeout() {
    let mut client = client();
    client.set_reply_timeout(Some(Duration::from_millis(50))).unwrap();
    let sleep = redgrease::PythonReader::generator(py!("def f():\n    import time\n    time.sleep(0.5)\n    yield 1"));
    let error = sleep.run::<u8>(&mut client).unwrap_err();
    assert_lines(&error, "no reply to RG.PYEXECUTE", "read timeout");
    assert_eq!(error.retry(), Retry::MayHaveRun);
}
