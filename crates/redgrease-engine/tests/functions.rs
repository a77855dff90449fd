//! Functions that clients send as plan and callbacks, with a driver of a few lines: what goes to the worker, in which order,
//! and what the client is told.

use std::collections::VecDeque;

use redgrease_core::codec::Value;
use redgrease_core::command::{Action, Function, PyExecute};
use redgrease_core::frame::{FromWorker, PROTOCOL_VERSION, Records, ToWorker, split};
use redgrease_core::id::{Database, ExecutionNo, PlanNo, SessionNo, WorkerNo};
use redgrease_core::policy::Protection;
use redgrease_core::render::Reply;
use redgrease_engine::frames::Frames;
use redgrease_engine::id::ClientNo;
use redgrease_engine::input::{Caller, Command, Inside, Slice};
use redgrease_engine::{Capabilities, Config, Effect, Engine, Fact, Input, Question, Situation, Work};

/// What stands in a frame, as far as the tests look at it.
#[derive(Debug, Clone, PartialEq)]
enum Sent {
    Load { session: SessionNo, plan: PlanNo },
    Restore { session: SessionNo, plan: Option<PlanNo> },
    Start { execution: ExecutionNo, plan: PlanNo, first_step: u64, records: Vec<u8> },
    Registered(PlanNo),
    Other,
}

struct Driver {
    engine: Engine,
    replies: Vec<(ClientNo, Reply)>,
    /// For each turn of the loop what was written to workers in it.
    written: Vec<Vec<Sent>>,
    workers: Vec<WorkerNo>,
    /// Number of keys that a reader finds; `None`: it has not found any yet.
    keys: Option<u64>,
}

impl Driver {
    fn new() -> Driver {
        let capabilities = Capabilities { jobs: true };
        let engine = Engine::new(
            Config::new(redgrease_engine::Machine { cores: 2, memory_bytes: 1 << 30 }),
            Ok("python".into()),
            "0".into(),
            capabilities,
        );
        let mut driver =
            Driver { engine, replies: Vec::new(), written: Vec::new(), workers: Vec::new(), keys: Some(3) };
        driver.input(Input::Started);
        driver.turn();
        driver
    }

    fn input(&mut self, input: Input<'_>) {
        let mut effects = Vec::new();
        self.engine.handle(&Situation::default(), input, &mut effects);
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            if let Some(follows) = self.perform(effect) {
                let mut effects = Vec::new();
                self.engine.handle(&Situation::default(), follows, &mut effects);
                effects.into_iter().rev().for_each(|effect| queue.push_front(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input<'static>> {
        match effect {
            Effect::Reply { client, answer } => self.replies.push((client, answer.into_reply())),
            Effect::StartWorker { worker, .. } => self.workers.push(worker),
            Effect::Ask { question, about } => {
                let fact = match about {
                    Question::Protection => Fact::Protection(Protection::default()),
                    Question::Command(_) => Fact::Command(None),
                    Question::AdoptProcess { .. } | Question::MayRead { .. } => Fact::Permission(Ok(())),
                    Question::ResidentBytes(_) | Question::TotalBytes(_) => Fact::Number(Some(0)),
                    other => panic!("unexpected question {other:?}"),
                };
                return Some(Input::Answer { question, fact });
            }
            Effect::ReadSlice { execution, reader, count_only, .. } => {
                assert!(count_only, "records were made to be counted");
                let slice = Slice { count: self.keys?, ended: true, ..Slice::default() };
                return Some(Input::SliceRead { execution, reader, slice });
            }
            Effect::DrainOutput { worker, session } => return Some(Input::OutputDrained { worker, session }),
            Effect::Then(step) => return Some(Input::Then(step)),
            _ => {}
        }
        None
    }

    /// What happens before the loop sleeps: readers read, and what waits is written.
    fn turn(&mut self) {
        self.input(Input::Turn);
        for _ in 0..10 {
            self.input(Input::Work(Work::Readers));
        }
        let mut frames = Vec::new();
        for worker in self.workers.clone() {
            let mut out = Vec::new();
            self.engine.take_output(worker, &mut out);
            self.input(Input::Written { worker, bytes: out.len() as u64 });
            let mut rest = out.as_slice();
            while let Some((body, taken)) = split(rest).unwrap() {
                frames.push(sent(&ToWorker::parse(body).unwrap()));
                rest = &rest[taken..];
            }
        }
        self.written.push(frames);
    }

    fn says(&mut self, worker: WorkerNo, frame: &FromWorker<'_>) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        let frames = Frames::cut(&mut bytes).unwrap().unwrap();
        self.input(Input::Received { worker, frames });
        for _ in 0..5 {
            self.input(Input::Work(Work::Frames));
        }
        self.turn();
    }

    fn dies(&mut self, worker: WorkerNo) {
        self.input(Input::ConnectionClosed(worker));
        self.input(Input::ProcessEnded { worker, how: Some("was killed by signal 9 (SIGKILL)".into()) });
        self.turn();
    }

    fn worker_is_ready(&mut self, worker: WorkerNo) {
        self.input(Input::WorkerStarted { worker, pid: 7 });
        let ready = FromWorker::Ready {
            protocol: PROTOCOL_VERSION,
            codec: redgrease_core::codec::CODEC_VERSION,
            pid: 7,
            python: "3.11.7",
            package: redgrease_core::VERSION,
            isolation: "off",
        };
        self.says(worker, &ready);
    }

    fn send(&mut self, client: u64, action: Action, plan: &[u8]) {
        let caller = Caller { user: None, database: Database(0), administers: true, inside: Inside::Nothing };
        let function = Some(Function { action, plan, callbacks: b"callbacks" });
        let arguments = PyExecute { script: b"a function", function, ..PyExecute::default() };
        let command = Command::PyExecute { arguments, new_id: "id", tagged: false };
        self.input(Input::Command { client: ClientNo(client), caller: &caller, command });
        self.turn();
    }

    /// What was written since the last call, one list for each turn in which anything was.
    fn taken(&mut self) -> Vec<Vec<Sent>> {
        std::mem::take(&mut self.written).into_iter().filter(|frames| !frames.is_empty()).collect()
    }
}

fn sent(frame: &ToWorker<'_>) -> Sent {
    match frame {
        ToWorker::Load { session, function, .. } => Sent::Load { session: *session, plan: function.plan },
        ToWorker::Restore { session, function, .. } => {
            Sent::Restore { session: *session, plan: function.map(|function| function.plan) }
        }
        ToWorker::Start { exec, plan, first_step, records, .. } => {
            Sent::Start { execution: *exec, plan: *plan, first_step: *first_step, records: records.bytes.to_vec() }
        }
        ToWorker::Registered { plan } => Sent::Registered(*plan),
        _ => Sent::Other,
    }
}

fn plan(reader: &str, steps: &[&str], args: &[(&str, Value)]) -> Vec<u8> {
    let dict = |pairs: &[(&str, Value)]| {
        Value::Dict(pairs.iter().map(|(name, value)| (Value::text(*name), value.clone())).collect())
    };
    let steps = steps.iter().map(|step| Value::List(vec![Value::text(*step)])).collect();
    let fields = [
        ("reader", Value::text(reader)),
        ("desc", Value::None),
        ("mode", Value::text("async")),
        ("reply", Value::text("plain")),
        ("steps", Value::List(steps)),
        ("args", dict(args)),
    ];
    dict(&fields).encode()
}

fn counting(steps: &[&str]) -> Vec<u8> {
    let args = [("pattern", Value::text("k*")), ("noScan", Value::Bool(false)), ("readValue", Value::Bool(true))];
    plan("KeysReader", steps, &args)
}

fn command(name: &str) -> Vec<u8> {
    let args = [
        ("hook", Value::None),
        ("trigger", Value::text(name)),
        ("keyprefix", Value::None),
        ("inorder", Value::Bool(false)),
    ];
    plan("CommandReader", &["map"], &args)
}

fn loaded(session: SessionNo, error: Option<&str>) -> FromWorker<'_> {
    FromWorker::ScriptDone { request: session.0, error, blob: b"" }
}

fn only_load(frames: &[Vec<Sent>]) -> (SessionNo, PlanNo) {
    match frames {
        [frames] => match frames.as_slice() {
            [Sent::Load { session, plan }, ..] => (*session, *plan),
            other => panic!("not a function that is loaded: {other:?}"),
        },
        other => panic!("not one write: {other:?}"),
    }
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(", ")),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_native_plan_is_answered_without_a_worker_and_leaves_no_session() {
    let mut driver = Driver::new();
    driver.send(1, Action::Run, &counting(&["count", "tostr", "collect"]));
    let (client, reply) = driver.replies.pop().unwrap();
    assert_eq!(client, ClientNo(1));
    assert_eq!(text(&reply), "[[3], []]");
    assert_eq!(driver.taken(), Vec::<Vec<Sent>>::new());
    let info = driver.engine.info();
    assert_eq!((info.sessions, info.executions), (0, 0));
}

#[test]
fn a_run_is_one_write_to_its_worker_and_answered_at_its_end() {
    let mut driver = Driver::new();
    let worker = driver.workers[0];
    driver.worker_is_ready(worker);
    driver.taken();
    driver.send(1, Action::Run, &plan("PythonReader", &["map"], &[]));
    let frames = driver.taken();
    let (session, plan) = only_load(&frames);
    let [Sent::Load { .. }, Sent::Start { execution, plan: started, first_step: 0, .. }] = frames[0].as_slice() else {
        panic!("{frames:?}");
    };
    assert_eq!(*started, plan);
    driver.says(worker, &loaded(session, None));
    assert!(driver.replies.is_empty());
    let records = Records { count: 1, bytes: &Value::Int(42).encode() };
    let done =
        FromWorker::Done { exec: *execution, aborted: false, records, errors: Vec::new(), step_micros: Vec::new() };
    driver.says(worker, &done);
    assert!(text(&driver.replies.pop().unwrap().1).contains("42"));
    assert_eq!((driver.engine.info().sessions, driver.engine.info().executions), (0, 0));
}

#[test]
fn what_native_steps_make_is_sent_with_the_step_behind_them() {
    let mut driver = Driver::new();
    driver.worker_is_ready(driver.workers[0]);
    driver.taken();
    driver.send(1, Action::Run, &counting(&["count", "collect", "map"]));
    let frames = driver.taken().concat();
    let [Sent::Load { plan, .. }, Sent::Start { plan: started, first_step: 2, records, .. }] = frames.as_slice() else {
        panic!("{frames:?}");
    };
    assert_eq!((started, records), (plan, &Value::Int(3).encode()));
}

#[test]
fn a_function_that_cannot_be_loaded_is_an_error_and_its_execution_is_gone() {
    let mut driver = Driver::new();
    let worker = driver.workers[0];
    driver.worker_is_ready(worker);
    driver.taken();
    driver.send(1, Action::Run, &plan("PythonReader", &["map"], &[]));
    let (session, _) = only_load(&driver.taken());
    driver.says(worker, &loaded(session, Some("no such module")));
    assert_eq!(driver.replies.pop(), Some((ClientNo(1), Reply::Error("no such module".into()))));
    assert_eq!((driver.engine.info().sessions, driver.engine.info().executions), (0, 0));
}

#[test]
fn a_run_whose_worker_dies_before_it_is_loaded_is_an_error_and_leaves_nothing() {
    for keys in [None, Some(3)] {
        let mut driver = Driver::new();
        let worker = driver.workers[0];
        driver.worker_is_ready(worker);
        driver.taken();
        driver.keys = keys;
        driver.send(1, Action::Run, &counting(&["count", "map"]));
        assert_eq!(driver.taken().concat().len(), if keys.is_some() { 2 } else { 1 }, "is it started?");
        driver.dies(worker);
        let (client, reply) = driver.replies.pop().unwrap();
        assert!(client == ClientNo(1) && text(&reply).contains("WORKERDIED"), "{reply:?}");
        assert!(driver.replies.is_empty());
        assert_eq!((driver.engine.info().sessions, driver.engine.info().executions), (0, 0));
    }
}

#[test]
fn native_steps_of_a_run_whose_worker_dies_end_with_it() {
    let mut driver = Driver::new();
    let worker = driver.workers[0];
    driver.worker_is_ready(worker);
    driver.keys = None;
    driver.taken();
    driver.send(1, Action::Run, &counting(&["count", "map"]));
    let (session, _) = only_load(&driver.taken());
    driver.says(worker, &loaded(session, None));
    driver.dies(worker);
    assert!(text(&driver.replies.pop().unwrap().1).contains("WORKERDIED"));
    assert_eq!((driver.engine.info().sessions, driver.engine.info().executions), (0, 0));
}

#[test]
fn a_registration_is_verified_first_and_counts_when_it_is_loaded() {
    let mut driver = Driver::new();
    let worker = driver.workers[0];
    driver.worker_is_ready(worker);
    driver.taken();
    driver.send(1, Action::Register, &plan("PythonReader", &["map"], &[]));
    assert!(text(&driver.replies.pop().unwrap().1).contains("does not support register"));
    assert_eq!((driver.taken().len(), driver.engine.info().sessions), (0, 0));
    driver.send(2, Action::Register, &command("x"));
    let (session, plan) = only_load(&driver.taken());
    assert!(driver.replies.is_empty());
    assert_eq!(driver.engine.info().registrations, 0);
    driver.says(worker, &loaded(session, None));
    assert_eq!(driver.replies.pop(), Some((ClientNo(2), Reply::Simple("OK".into()))));
    assert_eq!(driver.engine.info().registrations, 1);
    assert_eq!(driver.taken().concat(), [Sent::Registered(plan)]);
    driver.send(3, Action::Register, &command("x"));
    assert!(text(&driver.replies.pop().unwrap().1).contains("trigger already registered"));
    assert_eq!(driver.taken().len(), 0);
}

#[test]
fn a_registered_function_is_rebuilt_from_what_the_client_sent() {
    let mut driver = Driver::new();
    let worker = driver.workers[0];
    driver.worker_is_ready(worker);
    driver.taken();
    driver.send(1, Action::Register, &command("x"));
    let (session, plan) = only_load(&driver.taken());
    driver.says(worker, &loaded(session, None));
    driver.dies(worker);
    let next = *driver.workers.iter().find(|other| **other != worker).expect("another worker");
    driver.taken();
    driver.worker_is_ready(next);
    let frames = driver.taken().concat();
    assert!(frames.contains(&Sent::Restore { session, plan: Some(plan) }), "{frames:?}");
}
