//! What other shards send, and how it is answered.

use proptest::prelude::*;
use redgrease_core::peer::link::{
    HELLO_FUNCTION, LinkHello, LinkPayload, MESSAGE_FUNCTION, NETWORK_TEST_FUNCTION, Versions, run_id,
};
use redgrease_engine::Error;
use redgrease_engine::cluster::links::Sizes;
use redgrease_engine::cluster::receiving::{PeerCommand, Received};
use redgrease_engine::limits::{RECEIVED_BYTES_SOFT, UNKNOWN_SENDERS_MAX};

use crate::peer::{Tested, bulk, error, hello, id, topology, whole};

const RUN: &str = "sender";

/// The epoch of a hello that is answered, and the number of the last message.
fn terms(received: &Received) -> (u64, Option<u64>) {
    let Received::Hello(bytes) = received else { panic!("{received:?}") };
    let terms = LinkHello::decode(bytes).unwrap().terms.unwrap();
    assert_eq!(terms.shard, id("1"));
    (terms.epoch, terms.received)
}

fn code(received: &Received) -> String {
    let Received::Refused(error) = received else { panic!("{received:?}") };
    error.to_string().split(' ').next().unwrap_or_default().to_owned()
}

impl Tested {
    fn hears_hello(&mut self, run: &str, epoch: u64, number: u64) -> Received {
        self.receives(&run_id(run), HELLO_FUNCTION, &hello("1", epoch, None), number)
    }

    fn hears(&mut self, run: &str, epoch: u64, number: u64, message: &str) -> Received {
        self.receives(&run_id(run), MESSAGE_FUNCTION, &whole(epoch, message.as_bytes()), number)
    }
}

/// Shard `2` has said hello.
fn heard() -> Tested {
    let mut tested = Tested::new();
    assert_eq!(terms(&tested.hears_hello(RUN, 0, 0)), (0, None));
    tested
}

#[test]
fn a_message_of_redgears_is_answered_as_redgears_does() {
    let mut tested = Tested::new();
    let mut receives = |run: &str, function: &[u8], number: &str| {
        let (sender, run, number) = (b"9".as_slice(), run.as_bytes(), number.as_bytes());
        tested.does(|links, at| links.receive(at, &PeerCommand { sender, run, function, payload: b"test", number }))
    };
    for (run, number, expected) in [
        ("r", "0", Received::Ok),
        ("r", "0", Received::Duplicate),
        ("r", "7", Received::Ok),
        ("r", "6", Received::Duplicate),
        ("s", "0", Received::Ok),
        ("r", "7", Received::Duplicate),
        ("r", "8", Received::Ok),
    ] {
        assert_eq!(receives(run, NETWORK_TEST_FUNCTION, number), expected, "{run} {number}");
    }
    for number in ["", "x", "-1", "+1", "1.5", " 1", "18446744073709551616", "18446744073709551615"] {
        assert_eq!(
            receives("r", NETWORK_TEST_FUNCTION, number),
            Received::Refused(Error::BadMessageNumber),
            "{number}"
        );
    }
    assert_eq!(receives("r", b"RG_NoSuchThing", "9"), Received::Refused(Error::NoSuchReceiver));
    assert_eq!(code(&receives("", NETWORK_TEST_FUNCTION, "9")), "PEERPROTOCOL");
    assert_eq!(code(&receives(&"r".repeat(129), NETWORK_TEST_FUNCTION, "9")), "PEERPROTOCOL");
    assert_eq!(tested.take_notices(), [""; 0]);
}

#[test]
fn messages_are_handled_in_order_and_once() {
    let mut tested = heard();
    assert_eq!(tested.hears(RUN, 0, 0, "a"), Received::Ok);
    assert_eq!(tested.hears(RUN, 0, 1, "b"), Received::Ok);
    assert_eq!(tested.hears(RUN, 0, 0, "a"), Received::Duplicate);
    assert_eq!(tested.hears(RUN, 0, 1, "b"), Received::Duplicate);
    assert_eq!(code(&tested.hears(RUN, 0, 3, "d")), "PEERPROTOCOL", "message 2 is missing");
    let plain = |tested: &mut Tested, number| tested.receives(&run_id(RUN), NETWORK_TEST_FUNCTION, b"test", number);
    assert_eq!(code(&plain(&mut tested, 9)), "PEERPROTOCOL", "so it is");
    assert_eq!(plain(&mut tested, 2), Received::Ok);
    assert_eq!(tested.hears(RUN, 0, 3, "d"), Received::Ok);
    assert_eq!(tested.take_notices(), ["2: a", "2: b", "2: d"]);
    assert_eq!(terms(&tested.hears_hello(RUN, 0, 2)), (0, Some(3)), "on another connection");
}

#[test]
fn parts_are_put_together_and_hostile_ones_are_refused_by_name() {
    let mut tested = heard();
    let part = |tested: &mut Tested, number: u64, total: u64, offset: u64, part: &[u8]| {
        let payload = LinkPayload::Part { epoch: 0, total, offset, part }.encode();
        tested.receives(&run_id(RUN), MESSAGE_FUNCTION, &payload, number)
    };
    assert_eq!(part(&mut tested, 0, 5, 0, b"abc"), Received::Ok);
    assert_eq!(tested.links.received_bytes(), 3);
    for (total, offset, bytes, expected) in [
        (5, 0, b"abc".as_slice(), "a part at 0 of 5 bytes, and 3 of 5 bytes are there"),
        (5, 3, b"abc", "a part of 3 bytes at 3 of 5"),
        (u64::MAX, 3, b"d", "a message of 18446744073709551615 bytes, more than 267386880"),
    ] {
        let Received::Refused(error) = part(&mut tested, 1, total, offset, bytes) else { panic!("{expected}") };
        assert!(error.to_string().starts_with("PEERPROTOCOL ") && error.to_string().ends_with(expected), "{error}");
    }
    assert_eq!(code(&tested.hears(RUN, 0, 1, "between")), "PEERPROTOCOL");
    assert_eq!(code(&tested.receives(&run_id(RUN), MESSAGE_FUNCTION, b"\xff\xff", 1)), "PEERPROTOCOL");
    assert_eq!(part(&mut tested, 1, 5, 3, b"de"), Received::Ok);
    assert_eq!((tested.take_notices(), tested.links.received_bytes()), (vec!["2: abcde".to_owned()], 0));
    assert_eq!(part(&mut tested, 2, 5, 0, b"abc"), Received::Ok);
    assert_eq!(terms(&tested.hears_hello(RUN, 1, 5)), (1, Some(4)));
    assert_eq!((tested.take_notices(), tested.links.received_bytes()), (vec!["lost 2: PEERRESET".to_owned()], 0));
}

#[test]
fn a_message_needs_a_hello_of_its_run_and_epoch() {
    let mut tested = Tested::new();
    assert_eq!(code(&tested.hears(RUN, 0, 0, "a")), "PEERPROTOCOL");
    tested.hears_hello(RUN, 0, 0);
    assert_eq!(code(&tested.hears("other", 0, 0, "a")), "PEERPROTOCOL");
    assert_eq!(code(&tested.hears(RUN, 1, 0, "a")), "PEERPROTOCOL", "that epoch has not begun");
    assert_eq!(tested.hears(RUN, 0, 0, "a"), Received::Ok);
    tested.hears_hello(RUN, 1, 5);
    assert_eq!(code(&tested.hears(RUN, 0, 1, "b")), "PEERRESET", "that epoch has ended");
    assert_eq!(tested.hears(RUN, 1, 5, "c"), Received::Ok);
    assert_eq!(tested.take_notices(), ["2: a", "lost 2: PEERRESET", "2: c"]);
}

#[test]
fn when_this_shard_gave_up_messages_the_sender_learns_of_it() {
    let mut tested = heard();
    tested.hears(RUN, 0, 0, "a");
    // Its own link is not made.
    tested.pass(5000);
    assert_eq!(tested.take_notices(), ["2: a", "lost 2: PEERSILENT"]);
    assert_eq!(code(&tested.hears(RUN, 0, 1, "b")), "PEERRESET");
    assert_eq!(terms(&tested.hears_hello(RUN, 0, 1)), (1, Some(0)));
    assert_eq!(code(&tested.hears(RUN, 0, 1, "b")), "PEERRESET", "it has to agree first");
    assert_eq!(terms(&tested.hears_hello(RUN, 1, 2)), (1, Some(1)));
    assert_eq!(tested.hears(RUN, 1, 2, "c"), Received::Ok);
    assert_eq!(tested.take_notices(), ["2: c"]);
}

#[test]
fn messages_that_are_missing_are_given_up() {
    let mut tested = heard();
    tested.hears(RUN, 0, 0, "a");
    // The sender believes that messages up to 4 were acknowledged, which they were not.
    assert_eq!(terms(&tested.hears_hello(RUN, 0, 5)), (1, Some(4)));
    assert_eq!(tested.take_notices(), ["2: a", "lost 2: PEERRESET"]);
    let mut tested = Tested::new();
    // This shard has forgotten which messages it has had.
    assert_eq!(terms(&tested.hears_hello(RUN, 3, 5)), (4, Some(4)));
    assert_eq!(terms(&tested.hears_hello(RUN, 4, 5)), (4, Some(4)));
    assert_eq!((tested.hears(RUN, 4, 5, "f"), tested.take_notices()), (Received::Ok, vec!["2: f".to_owned()]));
}

#[test]
fn a_sender_that_has_restarted_is_another_one_and_its_former_run_is_refused() {
    let mut tested = heard();
    tested.hears(RUN, 0, 0, "a");
    assert_eq!(terms(&tested.hears_hello("again", 0, 0)), (0, None));
    assert_eq!(tested.hears("again", 0, 0, "b"), Received::Ok);
    assert_eq!(tested.take_notices(), ["2: a", "lost 2: PEERRESTARTED", "2: b"]);
    assert_eq!(code(&tested.hears(RUN, 0, 1, "late")), "PEERPROTOCOL");
    assert_eq!(code(&tested.hears_hello(RUN, 0, 1)), "PEERRESTARTED");
    assert_eq!(tested.hears("again", 0, 1, "c"), Received::Ok);
}

#[test]
fn the_link_to_a_shard_that_has_restarted_is_made_again_at_once() {
    let mut tested = Tested::new();
    let link = tested.meets("2", 0);
    tested.take_notices();
    tested.pass(1000);
    assert_eq!(terms(&tested.hears_hello("2 again", 0, 0)), (0, None));
    assert_eq!((tested.take_closed(), tested.take_notices()), (vec![link], vec!["lost 2: PEERRESTARTED".to_owned()]));
    tested.pass(100);
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2 again")));
    tested.sends("m");
    tested.answers(link, bulk(hello("2", 0, None)));
    assert_eq!((tested.take_notices(), tested.row().pending), (vec!["ready 2".to_owned()], 1), "it is lost once");
}

#[test]
fn a_shard_that_says_hello_is_alive() {
    let mut tested = Tested::new();
    for _ in 0..20 {
        tested.pass(1000);
        if let Some((link, _)) = tested.take_opened() {
            tested.is_cut(link);
        }
    }
    tested.hears_hello(RUN, 0, 0);
    tested.pass(500);
    assert!(tested.take_opened().is_some(), "without a hello it would be ten seconds");
}

#[test]
fn a_hello_that_is_meant_for_another_shard_or_of_another_version_only_tells_who_is_here() {
    let mut tested = Tested::new();
    let run = run_id(RUN);
    let other = Versions { peer: Versions::OURS.peer + 1, ..Versions::OURS };
    for payload in [hello("3", 9, None), LinkHello { versions: other, terms: None }.encode()] {
        assert_eq!(terms(&tested.receives(&run, HELLO_FUNCTION, &payload, 7)), (0, None));
        assert_eq!(code(&tested.hears(RUN, 0, 7, "a")), "PEERPROTOCOL");
    }
    for (run, payload) in [(run.as_str(), b"\xff".as_slice()), ("not one of redgrease", &hello("1", 0, None))] {
        assert_eq!(code(&tested.receives(run, HELLO_FUNCTION, payload, 0)), "PEERPROTOCOL");
    }
    let own = tested.run.clone();
    let (run, number) = (own.as_bytes(), b"0".as_slice());
    let mine = PeerCommand { sender: b"1", run, function: HELLO_FUNCTION, payload: &hello("1", 5, None), number };
    assert_eq!(terms(&tested.does(|links, at| links.receive(at, &mine))), (0, None), "to itself");
    assert_eq!(tested.take_notices(), [""; 0]);
}

#[test]
fn a_sender_that_the_topology_does_not_have_waits_until_it_has() {
    let mut tested = Tested::alone();
    tested.does(|links, at| links.set_topology(at, &topology("1", &[("1", 7001), ("3", 7003)]), None));
    for _ in 0..2 {
        assert_eq!(code(&tested.hears_hello(RUN, 0, 0)), "PEERGONE");
        assert_eq!(code(&tested.hears(RUN, 0, 0, "a")), "PEERPROTOCOL");
    }
    assert_eq!(
        (tested.reads, tested.links.contact_count()),
        (1, 1),
        "the topology is read again, which does not have it"
    );
    tested.now_ms += 10_000;
    assert_eq!((code(&tested.hears_hello(RUN, 0, 0)), tested.reads), ("PEERGONE".to_owned(), 2));
    let shards = [("1", 7001), ("2", 7002), ("3", 7003)];
    tested.does(|links, at| links.set_topology(at, &topology("1", &shards), None));
    assert_eq!(terms(&tested.hears_hello(RUN, 0, 0)), (0, None));
    assert_eq!((tested.hears(RUN, 0, 0, "a"), tested.take_notices()), (Received::Ok, vec!["2: a".to_owned()]));
}

#[test]
fn a_shard_that_is_not_known_yet_there_is_greeted_again_and_nothing_is_lost() {
    let mut tested = Tested::new();
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2")));
    tested.sends("m");
    tested.answers(link, error("PEERGONE shard 1 is not part of the cluster"));
    assert_eq!((tested.take_closed(), tested.row().pending), (vec![link], 1));
    tested.pass(1000);
    tested.meets("2", 0);
    assert_eq!((tested.take_notices(), tested.row().pending), (vec!["ready 2".to_owned()], 1));
}

#[test]
fn of_senders_of_redgears_that_the_topology_does_not_have_some_are_remembered() {
    let mut tested = Tested::new();
    let mut receive = |sender: usize| {
        let sender = format!("n{sender}");
        let (sender, run, function) = (sender.as_bytes(), b"r".as_slice(), NETWORK_TEST_FUNCTION);
        let command = PeerCommand { sender, run, function, payload: b"test", number: b"0" };
        let received = tested.does(|links, at| links.receive(at, &command));
        tested.now_ms += 1;
        (received, tested.links.contact_count())
    };
    for sender in 0..UNKNOWN_SENDERS_MAX {
        assert_eq!(receive(sender), (Received::Ok, sender + 2));
    }
    assert_eq!(receive(1000), (Received::Ok, UNKNOWN_SENDERS_MAX + 1));
    assert_eq!(receive(1), (Received::Duplicate, UNKNOWN_SENDERS_MAX + 1));
    assert_eq!(receive(0), (Received::Ok, UNKNOWN_SENDERS_MAX + 1), "the one that was heard first was forgotten");
}

#[test]
fn what_was_received_is_remembered_while_topologies_change() {
    let mut tested = heard();
    tested.hears(RUN, 0, 0, "a");
    for shards in [vec![("1", 7001), ("2", 9000)], vec![("1", 7001), ("2", 9000), ("3", 7003)]] {
        tested.take_opened();
        tested.does(|links, at| links.set_topology(at, &topology("1", &shards), None));
    }
    assert_eq!(tested.hears(RUN, 0, 0, "a"), Received::Duplicate);
    tested.does(|links, at| links.set_topology(at, &topology("1", &[("1", 7001), ("3", 7003)]), None));
    assert_eq!(tested.take_notices(), ["2: a", "lost 2: PEERGONE"]);
    assert_eq!(code(&tested.hears_hello(RUN, 0, 0)), "PEERGONE");
    let shards = [("1", 7001), ("2", 9000), ("3", 7003)];
    tested.does(|links, at| links.set_topology(at, &topology("1", &shards), None));
    assert_eq!(terms(&tested.hears_hello(RUN, 0, 0)), (1, Some(0)));
}

#[test]
fn the_next_message_is_acknowledged_when_there_is_room_for_it() {
    let mut tested = heard();
    let shards = [("1", 7001), ("2", 7002), ("3", 7003)];
    tested.does(|links, at| links.set_topology(at, &topology("1", &shards), None));
    let long = "x".repeat(RECEIVED_BYTES_SOFT / 2);
    assert_eq!(tested.hears(RUN, 0, 0, &long), Received::Ok);
    assert_eq!(tested.hears(RUN, 0, 1, &long), Received::OkLater(id("2")));
    assert!(!tested.links.has_room(id("2")) && tested.links.has_room(id("3")));
    assert!(tested.links.next_notice().is_some());
    assert!(tested.links.has_room(id("2")));
    tested.take_notices();
    assert_eq!(tested.links.received_bytes(), 0);
    // The same for all senders together.
    tested.links.set_sizes(Sizes { soft_bytes: (10_000, 15_000), ..Sizes::default() });
    tested.hears(RUN, 0, 2, &"x".repeat(9000));
    let run = run_id("3");
    let (sender, run) = (b"3".as_slice(), run.as_bytes());
    let mut third = |function, payload: &[u8]| {
        tested.does(|links, at| links.receive(at, &PeerCommand { sender, run, function, payload, number: b"0" }))
    };
    third(HELLO_FUNCTION, &hello("1", 0, None));
    assert_eq!(third(MESSAGE_FUNCTION, &whole(0, &[0; 9000])), Received::OkLater(id("3")));
}

#[test]
fn what_waits_here_is_bounded() {
    let mut tested = heard();
    let long = "x".repeat(100 << 20);
    for number in 0..5 {
        assert_eq!(tested.hears(RUN, 0, number, &long), Received::OkLater(id("2")));
    }
    assert_eq!(code(&tested.hears(RUN, 0, 5, &long)), "PEERQUEUE");
    tested.links.next_notice();
    assert_eq!(tested.hears(RUN, 0, 5, &long), Received::OkLater(id("2")), "it is sent again");
}

/// A command of a peer that follows no protocol, and what happens around it.
#[derive(Debug, Clone)]
enum Hostile {
    Command(u8, u8, u8, Vec<u8>, u64),
    Reply(u8, Vec<u8>),
    Cut,
    Send,
    Pass(u64),
    Handle,
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    let payload = prop_oneof![
        bytes(),
        (0u64..4, bytes()).prop_map(|(epoch, message)| whole(epoch, &message)),
        (0u64..4, 0u64..20, 0u64..20, bytes()).prop_map(|(epoch, total, offset, part)| {
            LinkPayload::Part { epoch, total, offset, part: &part }.encode()
        }),
        (0u64..4, prop::option::of(0u64..4)).prop_map(|(epoch, received)| hello("1", epoch, received)),
        (0u64..4, prop::option::of(0u64..4)).prop_map(|(epoch, received)| hello("2", epoch, received)),
        Just(hello("1", 1 << 48, Some(1 << 56))),
        Just(hello("2", 1 << 48, Some(1 << 56))),
    ];
    let number = prop_oneof![0u64..6, Just(u64::MAX), Just(1 << 56)];
    prop_oneof![
        6 => (0u8..4, 0u8..3, 0u8..4, payload.clone(), number).prop_map(|(sender, run, function, payload, number)| {
            Hostile::Command(sender, run, function, payload, number)
        }),
        6 => (0u8..6, payload).prop_map(|(kind, bytes)| Hostile::Reply(kind, bytes)),
        1 => Just(Hostile::Cut),
        2 => Just(Hostile::Send),
        2 => (0u64..3000).prop_map(Hostile::Pass),
        2 => Just(Hostile::Handle),
    ]
}

proptest! {
    /// Whatever a peer sends and answers: no panic, and everything stays bounded and consistent.
    #[test]
    fn hostile_peers_do_no_harm(acts in prop::collection::vec(hostile(), 0..120)) {
        use redgrease_engine::input::LinkReply;
        let mut tested = Tested::new();
        let mut link = None;
        for act in acts {
            match act {
                Hostile::Command(sender, run, function, payload, number) => {
                    let sender = [b"2".as_slice(), b"1", b"3", &[0xff; 50]][sender as usize];
                    let run = [run_id("2"), run_id("2 again"), "plain".into()][run as usize].clone();
                    let functions = [HELLO_FUNCTION, MESSAGE_FUNCTION, NETWORK_TEST_FUNCTION, b"?"];
                    let (function, number) = (functions[function as usize], number.to_string());
                    let (run, number) = (run.as_bytes(), number.as_bytes());
                    let command = PeerCommand { sender, run, function, payload: &payload, number };
                    tested.does(|links, at| links.receive(at, &command));
                }
                Hostile::Reply(kind, bytes) => {
                    if let Some((opened, _)) = tested.take_opened() {
                        link = Some(opened);
                        tested.does(|links, at| links.opened(at, opened));
                    }
                    let Some(link) = link else { continue };
                    let reply = match kind {
                        0 => LinkReply::Status(b"OK".to_vec()),
                        1 => bulk(run_id("2")),
                        2 => LinkReply::Error([b"PEERRESET ".as_slice(), &bytes].concat()),
                        3 => LinkReply::Error(bytes),
                        4 => LinkReply::Other,
                        _ => LinkReply::Bulk(bytes),
                    };
                    tested.answers(link, reply);
                }
                Hostile::Cut => if let Some(link) = link {
                    tested.is_cut(link);
                },
                Hostile::Send => tested.sends("m"),
                Hostile::Pass(ms) => tested.pass(ms),
                Hostile::Handle => {
                    tested.links.next_notice();
                }
            }
            prop_assert!(tested.links.received_bytes() < 120 * 400);
            prop_assert!(tested.links.contact_count() <= 3);
        }
    }
}
