//! Frames between server and worker.

use redgrease_core::codec::Reader;
use redgrease_core::frame::{self, Call, FromWorker, Records, Subject, ToWorker};
use redgrease_core::id::SessionNo;
use redgrease_core::plan::PlanSpec;

/// An input is the body of a frame of each direction, and also a stream of frames with their prefixes.
pub fn check(input: &[u8]) {
    body(input);
    let mut rest = input;
    loop {
        match frame::split(rest) {
            Ok(None) => break,
            Ok(Some((one, taken))) => {
                assert_eq!(taken, frame::PREFIX_BYTES + one.len());
                body(one);
                rest = &rest[taken..];
            }
            Err(error) => return assert!(!error.to_string().is_empty()),
        }
    }
}

fn body(body: &[u8]) {
    match FromWorker::parse(body) {
        Ok(parsed) => {
            let mut written = Vec::new();
            assert_eq!(parsed.write(&mut written), written.len());
            assert_eq!(FromWorker::parse(only(&written)), Ok(parsed.clone()));
            assert_eq!(Subject::of(body), Ok(subject(&parsed)));
            content(&parsed);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match ToWorker::parse(body) {
        Ok(parsed) => {
            let mut written = Vec::new();
            assert_eq!(parsed.write(&mut written), written.len());
            assert_eq!(ToWorker::parse(only(&written)), Ok(parsed));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = Subject::of(body);
}

/// The body of the only frame of a buffer.
fn only(written: &[u8]) -> &[u8] {
    let (body, taken) = frame::split(written).expect("a good prefix").expect("a whole frame");
    assert_eq!(taken, written.len());
    body
}

fn subject(frame: &FromWorker<'_>) -> Subject {
    match *frame {
        FromWorker::Ready { .. } | FromWorker::Answered { .. } => Subject::Worker,
        FromWorker::ScriptDone { request, .. } => Subject::Session(SessionNo(request)),
        FromWorker::Call { exec: None, session, .. } => Subject::Session(session),
        FromWorker::Call { exec: Some(exec), .. }
        | FromWorker::Progress { exec, .. }
        | FromWorker::Output { exec, .. }
        | FromWorker::Done { exec, .. }
        | FromWorker::Consumed { exec, .. }
        | FromWorker::Parked { exec }
        | FromWorker::Stop { exec } => Subject::Execution(exec),
        FromWorker::Log { .. } => Subject::Log,
    }
}

/// What the server reads behind the frame itself: records and plans.
fn content(frame: &FromWorker<'_>) {
    match frame {
        FromWorker::Output { records, .. } | FromWorker::Done { records, .. } => {
            let Records { count, bytes } = *records;
            let mut reader = Reader::new(bytes);
            for _ in 0..count {
                if reader.skip().is_err() {
                    break;
                }
            }
        }
        FromWorker::Call { op, .. } => match *op {
            Call::Run { spec, .. } | Call::Register { spec, .. } | Call::TimeEvent { spec, .. } => {
                let _ = PlanSpec::decode(spec);
            }
            Call::OverrideReply { value } => {
                let _ = Reader::new(value).value();
            }
            _ => {}
        },
        _ => {}
    }
}
