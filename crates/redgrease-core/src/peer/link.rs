//! What shards send over a link: the id of a run, hellos, and the payloads that carry messages.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::{PEER_VERSION, PeerError, decode};
use crate::VERSION;
use crate::codec::CODEC_VERSION;
use crate::id::ShardId;

/// The function of inner messages that carry a [`LinkHello`].
pub const HELLO_FUNCTION: &[u8] = b"redgrease.hello";

/// The function of inner messages that carry a [`LinkPayload`].
pub const MESSAGE_FUNCTION: &[u8] = b"redgrease.message";

/// The function of the messages of `RG.NETWORKTEST`, as RedisGears named it.
pub const NETWORK_TEST_FUNCTION: &[u8] = b"RG_NetworkTest";

/// What these messages say.
pub const NETWORK_TEST_PAYLOAD: &[u8] = b"test";

/// Length of the id of a run.
pub const RUN_ID_LEN: usize = 40;

/// Its digits that are random; the others are a checksum of them.
const RANDOM_LEN: usize = 32;

/// The longest version that a shard may name.
const VERSION_LEN_MAX: usize = 64;

/// The highest epoch: no shard gives up as many times.
pub const EPOCH_MAX: u64 = 1 << 48;

/// The highest number of a message: no shard sends as many.
pub const NUMBER_MAX: u64 = 1 << 56;

/// The fewest bytes that the payload of one inner message may have to have room for.
pub const PART_BYTES_MIN: u64 = 4 << 10;

/// The 32-bit FNV-1a hash.
fn fnv1a(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn checksum(random: &[u8]) -> String {
    format!("{:08x}", fnv1a(&[b"redgrease", random]))
}

/// The id of a run of the server, as `RG.HELLO` answers: 32 of these random hexadecimal digits (fewer are extended), and a
/// checksum, by which another shard of redgrease recognises the module before it sends anything that RedisGears does not
/// know.
#[must_use]
pub fn run_id(digits: &str) -> String {
    let hexadecimal = |character: &char| character.is_ascii_hexdigit();
    let mut id: String = digits.chars().filter(hexadecimal).take(RANDOM_LEN).collect();
    id.make_ascii_lowercase();
    while id.len() < RANDOM_LEN {
        let more = format!("{:08x}", fnv1a(&[digits.as_bytes(), id.as_bytes()]));
        id.extend(more.chars().take(RANDOM_LEN - id.len()));
    }
    let checksum = checksum(id.as_bytes());
    id + &checksum
}

/// Whether a run is one of redgrease.
#[must_use]
pub fn is_redgrease_run(run: &[u8]) -> bool {
    let Some((random, rest)) = run.split_at_checked(RANDOM_LEN) else { return false };
    rest == checksum(random).as_bytes()
}

/// The versions that a shard speaks. Their form never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions<'a> {
    /// Its [`PEER_VERSION`].
    pub peer: u64,
    /// Its [`CODEC_VERSION`].
    pub codec: u64,
    /// The version of its module.
    pub module: &'a str,
}

impl Versions<'static> {
    /// Those of this module.
    pub const OURS: Versions<'static> = Versions { peer: PEER_VERSION, codec: CODEC_VERSION, module: VERSION };
}

impl Versions<'_> {
    /// Whether shards with these versions understand each other. The versions of their modules may differ.
    #[must_use]
    pub fn match_with(&self, others: &Versions<'_>) -> bool {
        (self.peer, self.codec) == (others.peer, others.codec)
    }
}

/// What two shards with the same versions agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// In a hello: the shard that it is meant for. In the answer: the shard that answers.
    pub shard: ShardId,
    /// Counts how often one of both gave up messages between them: the higher one of both is valid for both.
    pub epoch: u64,
    /// In the answer: the number of the last message that it has received from the sender's run.
    pub received: Option<u64>,
    /// Bytes of payloads that it accepts before it acknowledges them.
    pub window_bytes: u64,
    /// The longest payload of one inner message.
    pub part_bytes: u64,
}

/// How two shards introduce themselves, in both directions: with the function [`HELLO_FUNCTION`], and as its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkHello<'a> {
    /// The versions of the sender.
    pub versions: Versions<'a>,
    /// The rest; `None` if it is of another version, whose form is not known.
    pub terms: Option<Terms>,
}

/// Why bytes are no hello.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HelloError {
    /// They are not readable.
    #[error("a hello is not readable: {0}")]
    Unreadable(#[from] PeerError),
    /// The version is not the name of one.
    #[error("a hello names a version of {0} bytes: up to {VERSION_LEN_MAX} visible characters are expected")]
    Version(usize),
    /// The epoch is not counted.
    #[error("a hello has the epoch {0}: up to {EPOCH_MAX} is expected")]
    Epoch(u64),
    /// The number of the last message is too high.
    #[error("a hello has received message {0}: up to {NUMBER_MAX} is expected")]
    Number(u64),
    /// The window or the parts are too small to send anything.
    #[error("a hello offers {window} bytes for messages in parts of {part}: at least {PART_BYTES_MIN} are expected")]
    Sizes {
        /// The window.
        window: u64,
        /// The longest part.
        part: u64,
    },
}

impl<'a> LinkHello<'a> {
    /// Its encoded form.
    ///
    /// # Panics
    /// Never: no field has an unknown length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let encoded = postcard::to_allocvec(&self.versions).expect("versions have no list");
        match &self.terms {
            Some(terms) => postcard::to_extend(terms, encoded).expect("terms have no list"),
            None => encoded,
        }
    }

    /// Reads an encoded hello.
    ///
    /// # Errors
    /// [`HelloError`]: the bytes are not a hello, or one of this version with something that it cannot say.
    pub fn decode(bytes: &'a [u8]) -> Result<LinkHello<'a>, HelloError> {
        let len = bytes.len();
        let unreadable = |cause| PeerError::Message { len, cause };
        let (versions, rest): (Versions<'a>, _) = postcard::take_from_bytes(bytes).map_err(unreadable)?;
        let visible = versions.module.bytes().all(|byte| byte.is_ascii_graphic());
        if versions.module.len() > VERSION_LEN_MAX || !visible {
            return Err(HelloError::Version(versions.module.len()));
        }
        if versions.peer != PEER_VERSION {
            return Ok(LinkHello { versions, terms: None });
        }
        let terms: Terms = decode(rest)?;
        if terms.epoch > EPOCH_MAX {
            return Err(HelloError::Epoch(terms.epoch));
        }
        if let Some(number) = terms.received.filter(|number| *number > NUMBER_MAX) {
            return Err(HelloError::Number(number));
        }
        if terms.window_bytes.min(terms.part_bytes) < PART_BYTES_MIN {
            return Err(HelloError::Sizes { window: terms.window_bytes, part: terms.part_bytes });
        }
        Ok(LinkHello { versions, terms: Some(terms) })
    }
}

/// Bytes of a payload besides those of its message.
pub const PAYLOAD_OVERHEAD_BYTES: usize = 64;

/// What one inner message carries: a message, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkPayload<'a> {
    /// A whole message.
    Whole {
        /// The epoch that it was sent in.
        epoch: u64,
        /// The message.
        #[serde(with = "serde_bytes")]
        message: &'a [u8],
    },
    /// A part of a message. All parts are sent one after the other.
    Part {
        /// The epoch that it was sent in.
        epoch: u64,
        /// Length of the whole message.
        total: u64,
        /// The position of the part in it.
        offset: u64,
        /// The part.
        #[serde(with = "serde_bytes")]
        part: &'a [u8],
    },
}

impl<'a> LinkPayload<'a> {
    /// Its encoded form.
    ///
    /// # Panics
    /// Never: no field has an unknown length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (LinkPayload::Whole { message: bytes, .. } | LinkPayload::Part { part: bytes, .. }) = self;
        let encoded = Vec::with_capacity(bytes.len() + PAYLOAD_OVERHEAD_BYTES);
        postcard::to_extend(self, encoded).expect("a payload has no list of unknown length")
    }

    /// Reads an encoded payload.
    ///
    /// # Errors
    /// [`PeerError`]: the bytes are not a payload of this version.
    pub fn decode(bytes: &'a [u8]) -> Result<LinkPayload<'a>, PeerError> {
        decode(bytes)
    }

    /// The epoch that it was sent in.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        let (LinkPayload::Whole { epoch, .. } | LinkPayload::Part { epoch, .. }) = self;
        *epoch
    }
}

/// The first word of an error's text, which programs compare; bytes that are no text have none.
#[must_use]
pub fn code_of_reply(text: &[u8]) -> &str {
    let word = text.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    core::str::from_utf8(word).unwrap_or_default()
}

/// The text of a reply for logs and errors: one line, of at most 200 characters.
#[must_use]
pub fn shown_reply(text: &[u8]) -> String {
    const SHOWN: usize = 200;
    let line: String = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN)])
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(SHOWN)
        .collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms() -> Terms {
        let shard = ShardId::padded(b"b").unwrap();
        Terms { shard, epoch: 3, received: Some(7), window_bytes: 8 << 20, part_bytes: 511 << 10 }
    }

    #[test]
    fn a_run_has_forty_digits_and_is_recognised() {
        for digits in ["", "1", "0123456789abcdef", "ABCDEF0123456789abcdef0123456789", &"f".repeat(64), "not hex"] {
            let id = run_id(digits);
            assert_eq!(id.len(), RUN_ID_LEN, "{digits}");
            assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
            assert!(is_redgrease_run(id.as_bytes()), "{id}");
        }
        assert_ne!(run_id("1"), run_id("2"));
        assert_ne!(run_id(&"0".repeat(32)), run_id(&"0".repeat(16)));
        // What documentation and tests with mocks say.
        assert_eq!(run_id(&"0".repeat(32)), "00000000000000000000000000000000f36a2ef3");
    }

    #[test]
    fn a_run_of_something_else_is_not_ours() {
        let other = run_id("1").replace(|character: char| character.is_ascii_digit(), "a");
        for run in ["", "1", &"0".repeat(40), &other, &(run_id("1") + "0"), &run_id("1")[..39]] {
            assert!(!is_redgrease_run(run.as_bytes()), "{run}");
        }
    }

    #[test]
    fn a_hello_survives_the_round_trip() {
        let hello = LinkHello { versions: Versions::OURS, terms: Some(terms()) };
        assert_eq!(LinkHello::decode(&hello.encode()), Ok(hello));
        let codec = LinkHello { versions: Versions { codec: 99, ..Versions::OURS }, ..hello };
        assert_eq!(LinkHello::decode(&codec.encode()), Ok(codec));
        assert!(!codec.versions.match_with(&Versions::OURS));
        assert!(Versions { module: "0.9", ..Versions::OURS }.match_with(&Versions::OURS));
    }

    #[test]
    fn of_a_hello_of_another_version_only_the_versions_are_read() {
        let versions = Versions { peer: PEER_VERSION + 1, ..Versions::OURS };
        let mut encoded = LinkHello { versions, terms: None }.encode();
        encoded.extend_from_slice(b"\xff something else");
        assert_eq!(LinkHello::decode(&encoded), Ok(LinkHello { versions, terms: None }));
    }

    #[test]
    fn a_hello_with_impossible_terms_is_refused_by_name() {
        let with = |change: fn(&mut Terms)| {
            let mut terms = terms();
            change(&mut terms);
            LinkHello { versions: Versions::OURS, terms: Some(terms) }.encode()
        };
        let refused = |bytes: &[u8]| LinkHello::decode(bytes).unwrap_err();
        assert_eq!(refused(&with(|terms| terms.epoch = u64::MAX)), HelloError::Epoch(u64::MAX));
        assert_eq!(refused(&with(|terms| terms.received = Some(u64::MAX))), HelloError::Number(u64::MAX));
        let sizes = HelloError::Sizes { window: 8 << 20, part: 0 };
        assert_eq!(refused(&with(|terms| terms.part_bytes = 0)), sizes);
        assert!(matches!(refused(&with(|terms| terms.window_bytes = 1)), HelloError::Sizes { window: 1, .. }));
        let module = "v".repeat(65);
        for (module, len) in [(module.as_str(), 65), ("1.0\n", 4)] {
            let versions = Versions { module, ..Versions::OURS };
            assert_eq!(refused(&LinkHello { versions, terms: None }.encode()), HelloError::Version(len));
        }
        let longer = [with(|_| ()), [0].into()].concat();
        assert!(matches!(refused(&longer), HelloError::Unreadable(PeerError::Trailing { trailing: 1, .. })));
        let versions_only = LinkHello { versions: Versions::OURS, terms: None }.encode();
        assert!(matches!(refused(&versions_only), HelloError::Unreadable(PeerError::Message { .. })));
    }

    #[test]
    fn a_payload_survives_the_round_trip_and_has_little_overhead() {
        let long = [7; 1000];
        let payloads = [
            LinkPayload::Whole { epoch: 0, message: b"" },
            LinkPayload::Whole { epoch: EPOCH_MAX, message: &long },
            LinkPayload::Part { epoch: EPOCH_MAX, total: u64::MAX, offset: u64::MAX, part: &long },
        ];
        for payload in payloads {
            let encoded = payload.encode();
            assert_eq!(LinkPayload::decode(&encoded), Ok(payload));
            assert!(encoded.len() <= long.len() + PAYLOAD_OVERHEAD_BYTES);
            for len in 0..encoded.len() {
                assert!(LinkPayload::decode(&encoded[..len]).is_err(), "{payload:?} cut to {len}");
            }
            let longer = [encoded, [0].into()].concat();
            assert!(matches!(LinkPayload::decode(&longer), Err(PeerError::Trailing { trailing: 1, .. })));
        }
    }

    #[test]
    fn an_error_of_a_peer_is_one_short_line() {
        assert_eq!(code_of_reply(b"ERRCLUSTER NULL cluster state"), "ERRCLUSTER");
        assert_eq!([code_of_reply(b""), code_of_reply(b"\xff x"), code_of_reply(b"BUSY")], ["", "", "BUSY"]);
        assert_eq!(shown_reply(b"NOPERM\r\nno "), "NOPERM  no");
        assert_eq!(shown_reply("\u{e9}".repeat(10_000).as_bytes()).chars().count(), 200);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_hello_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            if let Ok(hello) = LinkHello::decode(&bytes)
                && hello.terms.is_some()
            {
                let encoded = hello.encode();
                prop_assert_eq!(LinkHello::decode(&encoded), Ok(hello));
            }
        }

        #[test]
        fn any_bytes_are_a_payload_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(payload) = LinkPayload::decode(&bytes) {
                let encoded = payload.encode();
                prop_assert_eq!(LinkPayload::decode(&encoded), Ok(payload));
            }
        }
    }
}
