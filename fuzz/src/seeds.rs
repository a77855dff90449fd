//! Small valid inputs of each target.

use redgrease_core::codec::{DEPTH_MAX, KeyType, Value, Writer};
use redgrease_core::frame::{Call, FromWorker, Function, LogLevel, PREFIX_BYTES, Records, StartFlags, ToWorker};
use redgrease_core::id::{ExecutionNo, PlanNo, SessionNo, WorkerNo};
use redgrease_core::plan::StepKind;
use redgrease_core::requirement::{Requirement, WheelFile};
use redgrease_core::saved::{
    ByteBuf, Change, SavedFunction, SavedRegistration, SavedSession, SavedTimeEvent, SavedWheel,
};

fn dict(pairs: Vec<(&str, Value)>) -> Value {
    Value::Dict(pairs.into_iter().map(|(name, value)| (Value::text(name), value)).collect())
}

fn texts(texts: &[&str]) -> Value {
    Value::List(texts.iter().map(|text| Value::text(*text)).collect())
}

/// An encoded plan.
fn plan(reader: &str, mode: &str, steps: Vec<Value>, args: Vec<(&str, Value)>) -> Vec<u8> {
    dict(vec![
        ("reader", Value::text(reader)),
        ("desc", Value::None),
        ("mode", Value::text(mode)),
        ("reply", Value::text("plain")),
        ("steps", Value::List(steps)),
        ("args", dict(args)),
    ])
    .encode()
}

/// Each kind of step, with all settings that any of them has.
fn all_steps() -> Vec<Value> {
    let settings = || {
        dict(vec![
            ("inOrder", Value::Bool(false)),
            ("length", Value::Int(3)),
            ("offset", Value::Int(0)),
            ("extractor", Value::Bool(true)),
            ("reverse", Value::Bool(true)),
        ])
    };
    StepKind::ALL.iter().map(|kind| Value::List(vec![Value::text(kind.name()), settings()])).collect()
}

fn plans() -> Vec<Vec<u8>> {
    let count = || texts(&["count"]);
    let keys = |event_types, key_types, commands| {
        vec![
            ("pattern", Value::text("a*")),
            ("noScan", Value::Bool(false)),
            ("prefix", Value::text("a[b-d]?*")),
            ("eventTypes", event_types),
            ("keyTypes", key_types),
            ("commands", commands),
            ("readValue", Value::Bool(true)),
            ("unknownEvents", Value::Bool(false)),
        ]
    };
    let stream = vec![
        ("key", Value::text("s*")),
        ("fromId", Value::text("0-0")),
        ("pattern", Value::Bool(true)),
        ("prefix", Value::text("s*")),
        ("batch", Value::Int(1)),
        ("duration", Value::Int(0)),
        ("onFailedPolicy", Value::text("retry")),
        ("onFailedRetryInterval", Value::Int(1)),
        ("trimStream", Value::Bool(true)),
    ];
    let names = vec![("pattern", Value::text("a*")), ("noScan", Value::Bool(true)), ("count", Value::Int(1000))];
    let command = |hook, trigger| {
        vec![
            ("hook", hook),
            ("trigger", trigger),
            ("keyprefix", Value::Bytes(b"k".to_vec())),
            ("inorder", Value::Bool(false)),
        ]
    };
    vec![
        plan("KeysReader", "async", all_steps(), keys(Value::None, Value::None, Value::None)),
        plan(
            "KeysReader",
            "sync",
            vec![],
            keys(texts(&["set", "hmset", "hset", "change"]), texts(&["string", "hash"]), texts(&["SET"])),
        ),
        plan("KeysReader", "sync", vec![], keys(texts(&["settt"]), texts(&["zset"]), Value::None)),
        plan("KeysOnlyReader", "async", vec![count(), texts(&["tostr"]), texts(&["collect"])], names),
        plan("StreamReader", "async_local", vec![count(), texts(&["map"])], stream),
        plan("PythonReader", "async", vec![], vec![]),
        plan("ShardsIDReader", "async", vec![texts(&["collect"]), texts(&["distinct"])], vec![]),
        plan("CommandReader", "sync", vec![], command(Value::None, Value::Raw(b"go".to_vec()))),
        plan("CommandReader", "sync", vec![], command(Value::text("HSET"), Value::None)),
    ]
}

/// Seeds of [`crate::commands`].
#[must_use]
pub fn commands() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "oGB().run()",
        "oGB()\nUNBLOCKING\nID\nmy-id_1\nUPGRADE\nDESCRIPTION\nwhat it does\nREQUIREMENTS\nredis>=4\nnumpy",
        "oGB()\nreplace_with\nother\nforce_reinstall_requirements",
        "of\nREGISTER\nplan\ncallbacks\nID\na b",
        "oGB()\nbogus",
        "k*\nkey",
        "kperson:*\nperson:1",
        "ka\\*b\na*b",
        "k[^a-c]?*x[\\]z]*\ndaaxz",
        "k*a*b*c[d\nxaybzcd",
        "i-1",
        "i-18446744073709551615",
        "i-+1",
        "i-07",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    seeds.extend(plans().iter().map(|plan| [b"p", plan.as_slice()].concat()));
    seeds.push([b"of\nRUN\n", plans()[5].as_slice(), b"\ncallbacks"].concat());
    seeds
}

fn to_worker() -> Vec<ToWorker<'static>> {
    let records = Records { count: 2, bytes: &[0, 2] };
    let function = Function { plan: PlanNo(1 << 63), spec: b"spec", callbacks: b"pickle" };
    let (request, session, name) = (1, SessionNo(2), "s");
    let exec = ExecutionNo(9);
    vec![
        ToWorker::Shutdown,
        ToWorker::Hello {
            protocol: 6,
            version: "1.0.0",
            worker: WorkerNo(3),
            threads: 4,
            record_bytes_max: 1 << 26,
            spin_micros: 50,
        },
        ToWorker::Script {
            request,
            session,
            name,
            source: b"GB()\0\xff",
            paths: vec!["/a", "/b"],
            traceback: true,
            tagged: true,
        },
        ToWorker::Restore {
            request,
            session,
            name,
            function: Some(function),
            blobs: vec![b"p", b""],
            paths: vec!["/a"],
        },
        ToWorker::Load { request, session, name, function, paths: vec!["/a"], traceback: true },
        ToWorker::Registered { plan: PlanNo(4) },
        ToWorker::Start { exec, plan: PlanNo(4), lane: 0, flags: StartFlags::LAST, first_step: 1, records },
        ToWorker::Feed { exec, last: true, records },
        ToWorker::Abort { exec, begun: true },
        ToWorker::Reply { call: 5, result: Ok(&[9, 1, 0]) },
        ToWorker::Reply { call: 5, result: Err("ERR unknown") },
        ToWorker::ForgetPlans { plans: vec![PlanNo(1), PlanNo(2)] },
        ToWorker::ForgetSession { session },
        ToWorker::Threads { threads: 2 },
        ToWorker::Profile { request, session, order: Some("tottime") },
    ]
}

fn from_worker(spec: &[u8]) -> Vec<FromWorker<'_>> {
    let records = Records { count: 2, bytes: &[0, 2] };
    let exec = ExecutionNo(2);
    let call = |op| FromWorker::Call { exec: Some(exec), session: SessionNo(3), call: 1, op };
    vec![
        FromWorker::Ready { protocol: 6, codec: 1, pid: 77, python: "3.11.7", package: "1.0.0", isolation: "off" },
        FromWorker::ScriptDone { request: 1, error: Some("['Traceback']"), blob: b"pickle" },
        call(Call::Execute { argv: vec![b"set", b"\0", b""] }),
        call(Call::Run { plan: PlanNo(1), spec }),
        call(Call::Register { plan: PlanNo(1), spec, blob: b"blob" }),
        FromWorker::Call { exec: None, session: SessionNo(3), call: 1, op: Call::AtomicEnter },
        call(Call::AtomicExit),
        call(Call::ConfigGet { key: b"k" }),
        call(Call::HashTag),
        call(Call::CallNext { args: vec![b"a", b""] }),
        call(Call::GetCommand),
        call(Call::TimeEvent { plan: PlanNo(1), spec, blob: b"b", period_s: 2, key: Some(b"k") }),
        call(Call::OverrideReply { value: &[9, 1, 0] }),
        call(Call::Results { execution: "0-1" }),
        FromWorker::Progress { exec, step: 1 },
        FromWorker::Output { exec, records },
        FromWorker::Done { exec, aborted: false, records, errors: vec![b"boom"], step_micros: vec![1, 300] },
        FromWorker::Consumed { exec, bytes: 512 },
        FromWorker::Stop { exec },
        FromWorker::Parked { exec },
        FromWorker::Answered { request: 3, result: Ok("text") },
        FromWorker::Answered { request: 3, result: Err("error") },
        FromWorker::Log { session: None, level: LogLevel::Notice, message: b"100 %s \0" },
    ]
}

/// Seeds of [`crate::worker_frames`]: each body alone, and a stream of several frames.
#[must_use]
pub fn worker_frames() -> Vec<Vec<u8>> {
    let spec = &plans()[5];
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>) -> usize| {
        let mut buf = Vec::new();
        write(&mut buf);
        frames.push(buf);
    };
    to_worker().iter().for_each(|frame| add(&|buf| frame.write(buf)));
    from_worker(spec).iter().for_each(|frame| add(&|buf| frame.write(buf)));
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| frame[PREFIX_BYTES..].to_vec()).collect();
    seeds.push(frames[..4].concat());
    seeds.push(frames[frames.len() - 4..].concat());
    seeds
}

fn session(name: &str) -> SavedSession {
    SavedSession {
        name: name.into(),
        description: Some(ByteBuf::from(b"what \xff it does".to_vec())),
        user: "default".into(),
        database: 3,
        source: ByteBuf::from(b"GB()".to_vec()),
        function: Some(SavedFunction {
            plan: i64::MIN,
            spec: ByteBuf::from(b"s".to_vec()),
            callbacks: ByteBuf::from(b"c".to_vec()),
        }),
        functions: vec![ByteBuf::from(b"pickle".to_vec())],
        python: "3.11.7".into(),
        requirements: vec!["a>=1".into()],
        environment: "a>=1".into(),
        registrations: vec![SavedRegistration {
            number: 5,
            plan: -1,
            database: 3,
            spec: ByteBuf::from(b"\0".to_vec()),
            group: ByteBuf::from(b"g".to_vec()),
        }],
    }
}

fn changes() -> Vec<Change> {
    let (environment, file) = (String::from("a"), String::from("a-1-py3-none-any.whl"));
    vec![
        Change::All { sessions: vec![session("a")], next: 9 },
        Change::Session { session: session("a"), replaces: vec!["a".into(), "b".into()] },
        Change::Removed { registration: 7 },
        Change::WheelPart {
            environment: environment.clone(),
            file: file.clone(),
            offset: 1 << 40,
            part: ByteBuf::from(b"\0\xff".to_vec()),
        },
        Change::Wheels { environment, wheels: vec![SavedWheel { file, bytes: 2, sha256: "0f".into() }], locked: true },
        Change::TimeEvent {
            database: 1,
            key: ByteBuf::from(b"k".to_vec()),
            event: SavedTimeEvent {
                period_s: 3,
                plan: -5,
                spec: ByteBuf::from(b"s".to_vec()),
                session: SavedSession { function: None, registrations: vec![], ..session("a") },
            },
        },
    ]
}

/// One value of each tag.
fn values() -> Vec<Vec<u8>> {
    let all = Value::List(vec![
        Value::None,
        Value::Bool(true),
        Value::Int(-300),
        Value::BigInt("-123456789012345678901234567890".into()),
        Value::Float(f64::NAN),
        Value::Complex(1.5, -0.0),
        Value::text("+OK é"),
        Value::Bytes(vec![0, 255]),
        Value::ByteArray(vec![1]),
        Value::Raw(b"-ERR\r\n".to_vec()),
        Value::Pickle(b"\x80\x04N.".to_vec()),
        Value::Error(b"-ERR no".to_vec()),
        Value::Opaque("<object>".into()),
        Value::Tuple(vec![Value::Int(1)]),
        Value::Set(vec![Value::text("a")]),
        Value::FrozenSet(vec![]),
        Value::Dict(vec![(Value::Int(0), Value::None)]),
    ]);
    let mut records = Writer::new();
    records.key_record(b"k", Some(b"set"), KeyType::String);
    records.raw(b"value");
    records.key_only_record(b"k", None);
    records.stream_record(b"s", b"1-1", 1);
    records.raw(b"field");
    records.raw(b"value");
    // As deep as values may be nested, and records in the last level.
    let nested = |levels: usize, innermost: &dyn Fn(&mut Writer)| {
        let mut deep = Writer::new();
        (0..levels).for_each(|_| deep.list(1));
        innermost(&mut deep);
        deep.into_bytes()
    };
    vec![
        all.encode(),
        records.into_bytes(),
        nested(DEPTH_MAX, &|deep| deep.none()),
        nested(DEPTH_MAX, &|deep| deep.key_only_record(b"k", None)),
        nested(DEPTH_MAX - 1, &|deep| deep.stream_record(b"s", b"1-1", 0)),
    ]
}

/// Seeds of [`crate::stored`].
#[must_use]
pub fn stored() -> Vec<Vec<u8>> {
    let wheels = vec![WheelFile { file: "a-1.0-py3-none-any.whl".into(), data: ByteBuf::from(b"PK\x03\x04".to_vec()) }];
    let requirement = Requirement { name: "a>=1".into(), platform: "linux-x86_64".into(), wheels };
    let mut seeds: Vec<Vec<u8>> = changes().iter().map(Change::encode).collect();
    seeds.push(requirement.encode());
    seeds.extend(values());
    seeds
}
