//! `RG.WITHCODEC version command [arg ...]`: a command of a client that decodes tagged results

use crate::error::Error;
use redgrease_core::codec::CODEC_VERSION;

use super::request::Request;
use super::{getresults, pyexecute, trigger};

/// A command that supports the codec: its name, its handler, and numbers of arguments, including its name.
type Row = (&'static [u8], fn(&Request<'_>), usize, usize);

const COMMANDS: [Row; 5] = [
    (b"RG.PYEXECUTE", pyexecute::run, 2, usize::MAX),
    (b"RG.TRIGGER", trigger::run, 2, usize::MAX),
    (b"RG.TRIGGERONKEY", trigger::run, 3, usize::MAX),
    (b"RG.GETRESULTS", getresults::run, 2, 2),
    (b"RG.GETRESULTSBLOCKING", getresults::run_blocking, 2, 2),
];

/// Runs the command.
pub fn run(request: &Request<'_>) {
    let (version, inner) = (request.args[1], &request.args[2..]);
    let known = std::str::from_utf8(version).ok().and_then(|text| text.parse::<u64>().ok());
    if known != Some(CODEC_VERSION) {
        let seen = String::from_utf8_lossy(version);
        return request.error(&Error::UnknownCodec { seen: seen.into_owned(), known: CODEC_VERSION });
    }
    let Some((_, run, min, max)) = COMMANDS.iter().find(|(name, ..)| inner[0].eq_ignore_ascii_case(name)) else {
        let seen = String::from_utf8_lossy(inner[0]);
        return request.error(&Error::NoTaggedReply(seen.into_owned()));
    };
    if let Some(user) = request.invocation.user()
        && !request.driver.server.may_run(&user, inner)
    {
        let name = String::from_utf8_lossy(inner[0]).to_lowercase();
        return request.error(&Error::InnerDenied { user, command: name });
    }
    if inner.len() < *min || inner.len() > *max {
        return request.reply().wrong_arity();
    }
    run(&Request { args: inner, tagged: true, ..*request });
}
