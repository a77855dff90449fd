use super::*;
use crate::id::{ExecutionNo, PlanNo, SessionNo, WorkerNo};
use crate::peer::SlotRange;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn to_worker_frames() -> Vec<ToWorker<'static>> {
    let records = Records { count: 2, bytes: &[0, 2] };
    let function = Function { plan: PlanNo(1 << 63), spec: b"spec", callbacks: b"" };
    vec![
        ToWorker::Hello {
            protocol: 1,
            version: "1.0.0",
            worker: WorkerNo(3),
            threads: 4,
            record_bytes_max: 1 << 26,
            spin_micros: 50,
        },
        ToWorker::Script {
            request: 1,
            session: SessionNo(2),
            name: "s",
            source: b"GB()\0\xff",
            paths: vec!["/a", "/b"],
            traceback: true,
            tagged: false,
        },
        ToWorker::Restore {
            request: 1,
            session: SessionNo(2),
            name: "s",
            function: None,
            blobs: vec![b"p", b""],
            paths: vec![],
        },
        ToWorker::Restore {
            request: 1,
            session: SessionNo(2),
            name: "s",
            function: Some(function),
            blobs: vec![],
            paths: vec!["/a"],
        },
        ToWorker::Load { request: 1, session: SessionNo(2), name: "s", function, paths: vec!["/a"], traceback: true },
        ToWorker::Registered { plan: PlanNo(4) },
        ToWorker::Start {
            exec: ExecutionNo(9),
            plan: PlanNo(4),
            lane: 0,
            flags: StartFlags::LAST,
            first_step: 1,
            records,
        },
        ToWorker::Feed { exec: ExecutionNo(9), last: true, records },
        ToWorker::Abort { exec: ExecutionNo(9), begun: true },
        ToWorker::Reply { call: 5, result: Ok(&[9, 1, 0]) },
        ToWorker::Reply { call: 5, result: Err("ERR unknown") },
        ToWorker::ForgetPlans { plans: vec![PlanNo(1), PlanNo(2)] },
        ToWorker::ForgetSession { session: SessionNo(2) },
        ToWorker::Threads { threads: 2 },
        ToWorker::Profile { request: 3, session: SessionNo(2), order: Some("tottime") },
        ToWorker::Profile { request: 3, session: SessionNo(2), order: None },
        ToWorker::Route {
            exec: ExecutionNo(9),
            here: 1,
            shards: 2,
            slots: vec![SlotRange { first: 0, last: 16383, shard: 1 }],
            window: 1 << 20,
        },
        ToWorker::Arrived { exec: ExecutionNo(9), stage: 1, last: false, records },
        ToWorker::Room { exec: ExecutionNo(9), stage: 1, bytes: 2 },
        ToWorker::CloseStage { exec: ExecutionNo(9), stage: 1 },
        ToWorker::Cluster { several: true },
        ToWorker::Shutdown,
    ]
}

fn from_worker_frames() -> Vec<FromWorker<'static>> {
    let records = Records { count: 2, bytes: &[0, 2] };
    let call = |op| FromWorker::Call { call: 1, exec: Some(ExecutionNo(2)), session: SessionNo(3), op };
    vec![
        FromWorker::Ready { protocol: 1, codec: 1, pid: 77, python: "3.11.7", package: "1.0.0", isolation: "off" },
        FromWorker::ScriptDone { request: 1, error: Some("['Traceback']"), blob: b"" },
        FromWorker::ScriptDone { request: 1, error: None, blob: b"pickle" },
        call(Call::Execute { argv: vec![b"set", b"\0", b""] }),
        call(Call::Run { plan: PlanNo(1), spec: b"spec", blob: b"blob" }),
        call(Call::Register { plan: PlanNo(1), spec: b"spec", blob: b"blob" }),
        call(Call::AtomicEnter),
        call(Call::AtomicExit),
        call(Call::ConfigGet { key: b"k" }),
        call(Call::HashTag),
        call(Call::CallNext { args: vec![b"a", b""] }),
        call(Call::GetCommand),
        call(Call::TimeEvent { plan: PlanNo(1), spec: b"s", blob: b"b", period_s: 2, key: Some(b"k") }),
        call(Call::OverrideReply { value: &[9] }),
        call(Call::Results { execution: "0-1" }),
        FromWorker::Progress { exec: ExecutionNo(2), step: 1 },
        FromWorker::Output { exec: ExecutionNo(2), records },
        FromWorker::Done {
            exec: ExecutionNo(2),
            aborted: false,
            records,
            errors: vec![b"boom"],
            step_micros: vec![1, 2],
        },
        FromWorker::Consumed { exec: ExecutionNo(2), bytes: 512 },
        FromWorker::Stop { exec: ExecutionNo(2) },
        FromWorker::Parked { exec: ExecutionNo(2) },
        FromWorker::Moved { exec: ExecutionNo(2), stage: 1, shard: 199, records },
        FromWorker::StageEnded { exec: ExecutionNo(2), stage: 1 },
        FromWorker::Taken { exec: ExecutionNo(2), stage: 1, bytes: 1 << 20 },
        FromWorker::StageClosed { exec: ExecutionNo(2), stage: 2 },
        FromWorker::Answered { request: 3, result: Ok("text") },
        FromWorker::Answered { request: 3, result: Err("error") },
        FromWorker::Log { session: None, level: LogLevel::Notice, message: b"100 %s \0" },
    ]
}

#[test]
fn each_frame_survives_the_round_trip_and_several_share_a_buffer() {
    let mut buf = Vec::new();
    for frame in to_worker_frames() {
        frame.write(&mut buf);
    }
    let mut rest = &buf[..];
    for frame in to_worker_frames() {
        let (body, taken) = split(rest).unwrap().unwrap();
        assert_eq!(ToWorker::parse(body).unwrap(), frame);
        rest = &rest[taken..];
    }
    assert!(rest.is_empty());
    for frame in from_worker_frames() {
        let mut buf = Vec::new();
        assert_eq!(frame.write(&mut buf), buf.len());
        let (body, taken) = split(&buf).unwrap().unwrap();
        assert_eq!((FromWorker::parse(body).unwrap(), taken), (frame, buf.len()));
    }
}

#[test]
fn the_subject_of_a_frame_is_known_without_parsing_it() {
    for frame in from_worker_frames() {
        let mut buf = Vec::new();
        frame.write(&mut buf);
        let expected = match frame {
            FromWorker::Ready { .. } | FromWorker::Answered { .. } => Subject::Worker,
            FromWorker::ScriptDone { request, .. } => Subject::Session(SessionNo(request)),
            FromWorker::Call { exec: None, session, .. } => Subject::Session(session),
            FromWorker::Call { exec: Some(exec), .. }
            | FromWorker::Progress { exec, .. }
            | FromWorker::Output { exec, .. }
            | FromWorker::Done { exec, .. }
            | FromWorker::Consumed { exec, .. }
            | FromWorker::Parked { exec }
            | FromWorker::Moved { exec, .. }
            | FromWorker::StageEnded { exec, .. }
            | FromWorker::Taken { exec, .. }
            | FromWorker::StageClosed { exec, .. }
            | FromWorker::Stop { exec } => Subject::Execution(exec),
            FromWorker::Log { .. } => Subject::Log,
        };
        assert_eq!(Subject::of(&buf[PREFIX_BYTES..]), Ok(expected));
    }
    assert!(Subject::of(&[]).is_err() && Subject::of(&[99]).is_err() && Subject::of(&[5]).is_err());
}

#[test]
fn every_truncated_frame_and_every_trailing_byte_is_an_error() {
    for frame in from_worker_frames() {
        let mut buf = Vec::new();
        frame.write(&mut buf);
        let body = &buf[PREFIX_BYTES..];
        for len in 0..body.len() {
            assert!(FromWorker::parse(&body[..len]).is_err(), "{frame:?} cut to {len} bytes");
        }
        let longer = [body, &[0]].concat();
        let expected = FrameError::Trailing { kind: body[0], len: longer.len(), trailing: 1 };
        assert_eq!(FromWorker::parse(&longer), Err(expected));
    }
}

#[test]
fn the_handshake_begins_with_kind_and_version_in_every_version() {
    let mut bytes = Vec::new();
    ToWorker::Hello {
        protocol: 3,
        version: "1",
        worker: WorkerNo(2),
        threads: 4,
        record_bytes_max: 300,
        spin_micros: 0,
    }
    .write(&mut bytes);
    assert_eq!(bytes, [9, 0, 0, 0, 1, 3, 1, b'1', 2, 4, 0xac, 2, 0]);
    bytes.clear();
    FromWorker::Ready { protocol: 3, codec: 1, pid: 7, python: "3", package: "1", isolation: "off" }.write(&mut bytes);
    assert_eq!(bytes, [12, 0, 0, 0, 0, 3, 1, 7, 1, b'3', 1, b'1', 3, b'o', b'f', b'f']);
}

#[test]
fn fields_outside_their_range_are_refused_by_kind() {
    let records = |count: u8| FromWorker::parse(&[4, 9, count, 2, 0, 2]).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(records(2), Ok(()));
    let expected = "a frame of kind 4 and 6 bytes is not readable: it has an unknown kind, or a field with a value outside \
                    its range";
    assert_eq!(records(3), Err(expected.to_string()));
    for body in [&[9u8][..], &[8, 0, 4, 0], &[5, 9, 2, 0, 0, 0, 0], &[2, 2, 1, 1, 4], &[2, 0, 1, 1, 7]] {
        assert!(matches!(FromWorker::parse(body), Err(FrameError::Body { .. })), "{body:?}");
    }
}

#[test]
fn a_list_longer_than_the_input_is_refused_before_it_is_made() {
    // A Call::Execute and the errors of a Done, of 2^63 - 1 items each: room for them would be a panic.
    let many = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    for front in [&[2u8, 0, 1, 1, 0][..], &[5, 9, 0, 0, 0], &[5, 9, 0, 0, 0, 0]] {
        assert!(FromWorker::parse(&[front, &many].concat()).is_err(), "{front:?}");
        assert!(FromWorker::parse(&[front, &[0]].concat()).is_ok() || front[0] == 5);
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_the_body_arrives() {
    assert!(split(&u32::MAX.to_le_bytes()).is_err());
    assert!(split(&0u32.to_le_bytes()).is_err());
    assert_eq!(split(&[1, 0]), Ok(None));
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in any::<Vec<u8>>()) {
        let _ = split(&bytes);
        let _ = FromWorker::parse(&bytes);
        let _ = ToWorker::parse(&bytes);
    }
}
