//! What happens to messages: acknowledged, sent again, or reported as lost.

use redgrease_core::peer::link::{NETWORK_TEST_FUNCTION, NETWORK_TEST_PAYLOAD, run_id};
use redgrease_engine::input::LinkFailure;
use redgrease_engine::limits::{LINK_BEAT_MS, LINK_MESSAGE_BYTES_MAX, LINK_PART_BYTES, LINK_WINDOW_BYTES};

use crate::peer::{Tested, bulk, error, hello, id, status};

fn broadcasts(tested: &mut Tested) {
    tested.does(|links, at| links.broadcast(at, NETWORK_TEST_FUNCTION, NETWORK_TEST_PAYLOAD));
}

/// A link to a shard of redgrease that is ready.
fn ready() -> (Tested, redgrease_engine::id::LinkNo) {
    let mut tested = Tested::new();
    let link = tested.meets("2", 0);
    assert_eq!(tested.take_notices(), ["ready 2"]);
    (tested, link)
}

#[test]
fn what_was_not_acknowledged_is_sent_again_with_the_same_number() {
    let mut tested = Tested::new();
    broadcasts(&mut tested);
    let link = tested.meets_plain("r");
    broadcasts(&mut tested);
    broadcasts(&mut tested);
    assert_eq!(tested.take_commands(), [0, 1, 2].map(|number| format!("RG_NetworkTest test {number}")));
    tested.answers(link, status("OK"));
    tested.answers(link, status("duplicate message ignored"));
    assert_eq!(tested.row().pending, 1);
    tested.is_cut(link);
    broadcasts(&mut tested);
    assert_eq!((tested.take_commands(), tested.row().pending), (vec![], 2), "it is kept while the shard is down");
    tested.pass(1000);
    tested.meets_plain("r");
    assert_eq!(tested.take_commands(), [2, 3].map(|number| format!("RG_NetworkTest test {number}")));
}

#[test]
fn nothing_is_sent_again_to_another_run() {
    let mut tested = Tested::new();
    let link = tested.meets_plain("r");
    broadcasts(&mut tested);
    tested.is_cut(link);
    broadcasts(&mut tested);
    tested.pass(1000);
    tested.take_sent();
    tested.meets_plain("s");
    assert_eq!((tested.take_commands(), tested.row().pending), (vec![], 0));
    broadcasts(&mut tested);
    assert_eq!(tested.take_commands(), ["RG_NetworkTest test 0"]);
}

#[test]
fn a_plain_message_is_sent_a_few_times() {
    for (attempts_max, expected) in [(3, 3), (1, 1), (0, 10)] {
        let mut tested = Tested::new();
        tested.attempts_max = attempts_max;
        broadcasts(&mut tested);
        let mut sent = 0;
        for _ in 0..10 {
            let link = tested.meets_plain("r");
            sent += tested.take_commands().len();
            tested.is_cut(link);
            tested.pass(1000);
        }
        assert_eq!((sent, tested.row().pending), (expected, usize::from(attempts_max == 0)));
        let dropped = tested.log.iter().filter(|line| line.contains("did not acknowledge 1 messages")).count();
        assert_eq!(dropped, usize::from(attempts_max > 0));
    }
}

#[test]
fn a_message_that_is_never_acknowledged_is_lost_after_a_few_connections() {
    let mut tested = Tested::new();
    tested.attempts_max = 2;
    tested.sends("m");
    for _ in 0..2 {
        let link = tested.meets("2", 0);
        assert_eq!(tested.take_commands(), ["message 0 in 0: m"]);
        tested.is_cut(link);
        tested.pass(1000);
    }
    assert_eq!(tested.take_notices(), ["ready 2"]);
    let link = tested.connects();
    assert_eq!(tested.take_notices(), ["lost 2: PEERFAILED"]);
    tested.sends("n");
    tested.answers(link, bulk(run_id("2")));
    tested.answers(link, bulk(hello("2", 1, Some(0))));
    assert_eq!(tested.take_commands(), ["RG.HELLO", "hello 1 in 1", "message 1 in 1: n"]);
    assert_eq!(tested.take_notices(), ["ready 2"]);
}

#[test]
fn a_link_that_is_cut_for_a_moment_loses_nothing() {
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.sends("b");
    tested.answers(link, status("OK"));
    tested.is_cut(link);
    tested.sends("c");
    tested.take_sent();
    // For three seconds nothing can be reached.
    while tested.now_ms < 1_003_000 {
        tested.pass(100);
        if let Some((link, _)) = tested.take_opened() {
            tested.does(|links, at| links.closed(at, link, LinkFailure::Unreachable("refused".into())));
        }
    }
    tested.pass(1000);
    tested.meets("2", 0);
    assert_eq!(tested.take_notices(), [""; 0]);
    assert_eq!(tested.take_commands(), ["message 1 in 0: b", "message 2 in 0: c"]);
}

#[test]
fn a_link_that_is_cut_for_long_loses_everything_and_both_sides_know() {
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.is_cut(link);
    tested.pass(4900);
    assert_eq!(tested.take_notices(), [""; 0]);
    tested.pass(100);
    assert_eq!(tested.take_notices(), ["lost 2: PEERDOWN"]);
    tested.sends("b");
    assert_eq!((tested.take_notices(), tested.row().pending), (vec!["lost 2: PEERDOWN".to_owned()], 0));
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2")));
    // The number tells that message 0 will not come, the epoch that everything before has ended.
    assert_eq!(tested.take_commands().last().unwrap(), "hello 1 in 1");
    tested.answers(link, bulk(hello("2", 1, None)));
    tested.sends("c");
    assert_eq!(tested.take_notices(), ["ready 2"]);
    assert_eq!(tested.take_commands(), ["message 1 in 1: c"]);
}

#[test]
fn a_shard_that_does_not_answer_is_told_from_one_that_cannot_be_reached() {
    for idle_ms in [300, 5000] {
        let (mut tested, link) = ready();
        tested.idle_ms = idle_ms;
        tested.sends("a");
        tested.pass(idle_ms - 100);
        assert_eq!((tested.take_notices(), tested.take_closed()), (vec![], vec![]));
        tested.pass(100);
        assert_eq!((tested.take_notices(), tested.take_closed()), (vec!["lost 2: PEERSILENT".to_owned()], vec![link]));
        let text = format!("does not answer for {idle_ms} ms");
        assert!(tested.log.iter().any(|line| line.contains(&text)), "{:?}", tested.log);
    }
}

#[test]
fn each_second_a_sign_of_life_is_expected_also_without_messages() {
    let (mut tested, link) = ready();
    for _ in 0..10 {
        tested.pass(LINK_BEAT_MS);
        assert_eq!(tested.take_commands(), ["hello 0 in 0"]);
        tested.answers(link, bulk(hello("2", 0, None)));
    }
    assert_eq!(tested.take_notices(), [""; 0]);
    tested.pass(LINK_BEAT_MS + 5000);
    assert_eq!(tested.take_commands(), ["hello 0 in 0"], "one at a time");
    assert_eq!(tested.take_notices(), ["lost 2: PEERSILENT"]);
}

#[test]
fn time_in_which_this_server_stood_still_is_not_the_other_shards_fault() {
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.pass(1000);
    tested.now_ms += 20_000;
    tested.pass(1000);
    assert_eq!((tested.take_notices(), tested.take_closed()), (vec![], vec![]));
    tested.answers(link, status("OK"));
    assert_eq!(tested.row().pending, 0);
    let mut tested = Tested::new();
    let (link, _) = tested.take_opened().unwrap();
    tested.now_ms += 20_000;
    tested.pass(100);
    assert_eq!(tested.take_closed(), []);
    tested.does(|links, at| links.opened(at, link));
    assert_eq!(tested.take_commands(), ["RG.HELLO"]);
}

#[test]
fn an_error_closes_the_link_and_is_the_reason_when_messages_are_lost() {
    let cases = [
        (error("PEERQUEUE more than"), "PEERFAILED"),
        (error("BUSY Redis is busy running a script."), "PEERFAILED"),
        (error("NOPERM no"), "PEERAUTH"),
        (error("can not find the callback requested"), "PEERFAILED"),
        (bulk("x"), "PEERPROTOCOL"),
        (redgrease_engine::input::LinkReply::Other, "PEERPROTOCOL"),
    ];
    for (reply, code) in cases {
        let (mut tested, link) = ready();
        tested.sends("m");
        tested.answers(link, reply.clone());
        assert_eq!((tested.take_closed(), tested.take_notices()), (vec![link], vec![]), "{reply:?}");
        tested.pass(5000);
        assert_eq!(tested.take_notices(), [format!("lost 2: {code}")], "{reply:?}");
    }
    let (mut tested, link) = ready();
    tested.answers(link, status("OK"));
    assert!(tested.row().problem.unwrap().contains("a status that answers nothing"));
}

#[test]
fn when_the_other_shard_gave_up_messages_both_agree_on_the_same_connection() {
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.sends("b");
    tested.take_sent();
    for _ in 0..2 {
        tested.answers(link, error("PEERRESET messages were given up"));
    }
    assert_eq!((tested.take_commands(), tested.links.is_ready(id("2"))), (vec!["hello 0 in 0".to_owned()], false));
    tested.answers(link, bulk(hello("2", 4, None)));
    assert_eq!((tested.take_notices(), tested.row().pending), (vec!["lost 2: PEERRESET".to_owned()], 0));
    assert_eq!(tested.take_commands(), ["hello 2 in 4"]);
    tested.sends("c");
    tested.answers(link, bulk(hello("2", 4, Some(1))));
    assert_eq!(
        (tested.take_commands(), tested.take_notices()),
        (vec!["message 2 in 4: c".into()], vec!["ready 2".into()])
    );
    assert_eq!(tested.take_closed(), []);
}

#[test]
fn a_shard_that_refuses_messages_of_its_own_epoch_violates_the_protocol() {
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.answers(link, error("PEERRESET"));
    tested.answers(link, bulk(hello("2", 0, None)));
    assert_eq!(tested.take_closed(), [link]);
    assert!(tested.row().problem.unwrap().starts_with("PEERPROTOCOL "));
    let mut tested = Tested::new();
    let link = tested.meets_plain("r");
    broadcasts(&mut tested);
    tested.answers(link, error("PEERRESET"));
    assert_eq!(tested.take_closed(), [link], "to RedisGears it is an error as any other");
}

#[test]
fn what_is_sent_before_a_loss_is_handled_is_lost_with_it() {
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.answers(link, error("PEERRESET"));
    tested.answers(link, bulk(hello("2", 1, None)));
    tested.sends("b");
    assert_eq!((tested.row().pending, tested.take_notices()), (0, vec!["lost 2: PEERRESET".to_owned()]));
    tested.sends("c");
    assert_eq!(tested.row().pending, 1);
}

#[test]
fn answers_to_messages_that_were_given_up_mean_nothing() {
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.sends("b");
    tested.answers(link, error("PEERRESET"));
    tested.answers(link, bulk("garbage"));
    assert_eq!(tested.take_closed(), [link], "this one was not given up");
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.does(|links, at| links.send(at, id("2"), vec![0; LINK_MESSAGE_BYTES_MAX + 1]));
    assert_eq!(tested.take_notices(), ["lost 2: PEERQUEUE"]);
    assert_eq!(tested.take_commands(), ["message 0 in 0: a", "hello 1 in 1"]);
    tested.sends("b");
    tested.answers(link, error("PEERRESET"));
    tested.answers(link, bulk(hello("2", 1, Some(0))));
    assert_eq!((tested.take_commands(), tested.row().pending), (vec!["message 1 in 1: b".to_owned()], 1));
    assert_eq!((tested.take_notices(), tested.take_closed()), (vec!["ready 2".to_owned()], vec![]));
}

#[test]
fn a_shard_that_has_restarted_gets_nothing_of_before() {
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.is_cut(link);
    tested.sends("b");
    tested.pass(1000);
    tested.take_sent();
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2 again")));
    // Whether it is the same shard is known after its hello.
    assert_eq!((tested.take_commands().pop().unwrap(), tested.take_notices()), ("hello 0 in 0".into(), vec![]));
    tested.answers(link, bulk(hello("2", 0, None)));
    assert_eq!(
        (tested.take_notices(), tested.row().pending),
        (vec!["lost 2: PEERRESTARTED".into(), "ready 2".into()], 0)
    );
    tested.sends("c");
    assert_eq!(tested.take_commands(), ["message 0 in 0: c"]);
}

#[test]
fn a_connection_to_a_former_run_is_not_used() {
    let (mut tested, link) = ready();
    tested.is_cut(link);
    tested.pass(1000);
    let link = tested.meets("2 again", 0);
    assert_eq!(tested.take_notices(), ["lost 2: PEERRESTARTED", "ready 2"]);
    tested.is_cut(link);
    tested.pass(1000);
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2")));
    tested.answers(link, bulk(hello("2", 0, None)));
    assert_eq!((tested.take_closed(), tested.take_notices()), (vec![link], vec![]));
}

#[test]
fn a_shard_that_has_received_more_than_was_sent_is_agreed_with_again() {
    let mut tested = Tested::new();
    let link = tested.connects();
    tested.sends("early");
    tested.answers(link, bulk(run_id("2")));
    // This server had a link to it before, and has forgotten it.
    tested.answers(link, bulk(hello("2", 7, Some(41))));
    assert_eq!(tested.take_notices(), ["lost 2: PEERRESET"]);
    tested.sends("a");
    tested.answers(link, bulk(hello("2", 8, Some(41))));
    let expected = ["RG.HELLO", "hello 0 in 0", "hello 42 in 8", "message 42 in 8: a"];
    assert_eq!(
        (tested.take_commands(), tested.take_notices()),
        (expected.map(String::from).into(), vec!["ready 2".into()])
    );
}

#[test]
fn numbers_go_on_after_the_shard_was_not_in_the_topology() {
    use crate::peer::topology;
    let (mut tested, link) = ready();
    tested.sends("a");
    tested.answers(link, status("OK"));
    tested.does(|links, at| links.set_topology(at, &topology("1", &[("1", 7001), ("3", 7003)]), None));
    tested.take_opened();
    tested.does(|links, at| links.set_topology(at, &topology("1", &[("1", 7001), ("2", 7002)]), None));
    tested.take_sent();
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2")));
    assert_eq!(tested.take_commands(), ["RG.HELLO", "hello 1 in 1"]);
}

#[test]
fn a_long_message_is_sent_in_parts_as_far_as_the_window_is_open() {
    let (mut tested, link) = ready();
    let len = 3 * LINK_WINDOW_BYTES as usize;
    tested.does(|links, at| links.send(at, id("2"), vec![7; len]));
    let mut sent = 0;
    let mut on_its_way = 0;
    let mut bytes_max = 0;
    let mut bursts = 0;
    loop {
        for command in tested.take_sent() {
            assert!(command[4].len() as u64 <= LINK_PART_BYTES, "{}", command[4].len());
            sent += command[4].len();
            on_its_way += 1;
        }
        bytes_max = bytes_max.max(tested.links.in_flight(id("2")));
        if tested.links.has_more() {
            bursts += 1;
            tested.does(|links, at| links.send_more(at));
        } else if on_its_way > 0 {
            on_its_way -= 1;
            tested.answers(link, status("OK"));
        } else {
            break;
        }
    }
    assert!(sent >= len && sent < len + len / 1000, "{sent}");
    assert!(bytes_max <= LINK_WINDOW_BYTES && bytes_max > LINK_WINDOW_BYTES - LINK_PART_BYTES, "{bytes_max}");
    assert!(bursts >= 4, "a window of eight megabytes was sent in {bursts} bursts");
    assert_eq!((tested.row().pending, tested.links.in_flight(id("2"))), (0, 0));
}

#[test]
fn what_waits_for_a_shard_is_bounded() {
    let (mut tested, _) = ready();
    let message = vec![0; 100 << 20];
    for _ in 0..2 {
        tested.does(|links, at| links.send(at, id("2"), message.clone()));
    }
    assert_eq!((tested.row().pending, tested.take_notices()), (2, vec![]));
    tested.does(|links, at| links.send(at, id("2"), message.clone()));
    assert_eq!((tested.row().pending_bytes, tested.take_notices()), (0, vec!["lost 2: PEERQUEUE".to_owned()]));
}

#[test]
fn broadcasts_to_a_shard_that_is_down_are_bounded() {
    let mut tested = Tested::new();
    for _ in 0..20_000 {
        broadcasts(&mut tested);
    }
    assert_eq!(tested.row().pending, 10_000);
}

#[test]
fn a_message_to_a_shard_that_is_not_known_is_lost() {
    let (mut tested, _) = ready();
    tested.does(|links, at| links.send(at, id("7"), b"m".to_vec()));
    tested.does(|links, at| links.send(at, id("7"), b"n".to_vec()));
    assert_eq!(tested.take_notices(), ["lost 7: PEERGONE"]);
}
