//! How a link is made, and what happens when it cannot be.

use redgrease_core::peer::link::{
    HELLO_FUNCTION, LinkHello, NETWORK_TEST_FUNCTION, NETWORK_TEST_PAYLOAD, Terms, Versions, run_id,
};
use redgrease_engine::cluster::links::Links;
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::LinkReply;
use redgrease_engine::limits::LINK_OPEN_MS_MAX;

use crate::peer::{Tested, bulk, error, hello, id, status, topology};

fn broadcasts(tested: &mut Tested) {
    tested.does(|links, at| links.broadcast(at, NETWORK_TEST_FUNCTION, NETWORK_TEST_PAYLOAD));
}

#[test]
fn a_shard_of_redgears_gets_what_redgears_sends_and_nothing_else() {
    let mut tested = Tested::new();
    tested.meets_plain("its-run");
    broadcasts(&mut tested);
    broadcasts(&mut tested);
    let run = tested.run.clone();
    let expected = |number: &str| -> Vec<Vec<u8>> {
        let sender = format!("{}1", "0".repeat(39));
        ["RG.INNERMSGCOMMAND", &sender, &run, "RG_NetworkTest", "test", number].map(|arg| arg.into()).into()
    };
    assert_eq!(tested.take_sent(), [expected("0"), expected("1")]);
    tested.pass(4000);
    assert_eq!(tested.take_commands(), [""; 0], "no sign of life is expected");
    assert_eq!((tested.row().state, tested.links.is_ready(id("2"))), ("plain", false));
    assert_eq!(tested.row().run.as_deref(), Some(b"its-run".as_slice()));
    tested.sends("for redgrease");
    assert_eq!((tested.take_commands(), tested.take_notices()), (vec![], vec!["lost 2: PEERFOREIGN".to_owned()]));
}

#[test]
fn a_shard_of_redgrease_is_greeted_with_versions_and_terms() {
    let mut tested = Tested::new();
    let link = tested.connects();
    assert_eq!(tested.take_commands(), ["RG.HELLO"]);
    tested.sends("early");
    assert_eq!((tested.take_commands(), tested.row().state), (vec![], "greeting"));
    tested.answers(link, bulk(run_id("2")));
    let sent = tested.take_sent();
    let [_, sender, run, function, payload, number] = sent[0].as_slice() else { panic!("{sent:?}") };
    assert_eq!((sender.as_slice(), run.as_slice()), (id("1").as_str().as_bytes(), tested.run.as_bytes()));
    assert_eq!((function.as_slice(), number.as_slice()), (HELLO_FUNCTION, b"0".as_slice()));
    let terms = Terms { shard: id("2"), epoch: 0, received: None, window_bytes: 8 << 20, part_bytes: 511 << 10 };
    assert_eq!(LinkHello::decode(payload), Ok(LinkHello { versions: Versions::OURS, terms: Some(terms) }));
    assert!(!tested.links.is_ready(id("2")));
    tested.answers(link, bulk(hello("2", 0, None)));
    assert_eq!((tested.take_notices(), tested.links.is_ready(id("2"))), (vec!["ready 2".to_owned()], true));
    assert_eq!(tested.take_commands(), ["message 0 in 0: early"]);
    assert_eq!(tested.log, [format!("there is a link to shard {} (h:7002)", id("2"))]);
}

#[test]
fn a_mock_that_looks_like_redgrease_and_answers_ok_gets_plain_messages() {
    let mut tested = Tested::new();
    let link = tested.connects();
    broadcasts(&mut tested);
    tested.answers(link, bulk(run_id("2")));
    tested.answers(link, status("OK"));
    assert_eq!(tested.take_commands(), ["RG.HELLO", "hello 0 in 0", "RG_NetworkTest test 0"]);
    assert_eq!((tested.row().state, tested.take_notices()), ("plain", vec![]));
}

#[test]
fn what_does_not_answer_with_a_run_is_greeted_again_each_second_and_given_up_with_the_reason() {
    let cases = [
        (error("ERR unknown command 'RG.HELLO'"), "PEERFOREIGN"),
        (status("OK"), "PEERFOREIGN"),
        (LinkReply::Other, "PEERFOREIGN"),
        (bulk(""), "PEERFOREIGN"),
        (bulk("two words"), "PEERFOREIGN"),
        (bulk(vec![b'x'; 129]), "PEERFOREIGN"),
        (bulk(b"\xff".as_slice()), "PEERFOREIGN"),
        (error("LOADING Redis is loading the dataset in memory"), "PEERFAILED"),
        (error("BUSY a script is running"), "PEERFAILED"),
        (error("ERRCLUSTER NULL cluster state on hello msg"), "PEERFAILED"),
        (error("NOPERM this user has no permissions"), "PEERAUTH"),
        (error("NOAUTH Authentication required."), "PEERAUTH"),
    ];
    for (reply, code) in cases {
        let mut tested = Tested::new();
        let link = tested.connects();
        tested.sends("m");
        for _ in 0..4 {
            tested.answers(link, reply.clone());
            assert_eq!(tested.take_commands(), ["RG.HELLO"], "{reply:?}");
            tested.pass(900);
            assert_eq!(tested.take_commands(), [""; 0], "{reply:?}");
            tested.pass(100);
        }
        assert_eq!(tested.take_notices(), [""; 0], "{reply:?}");
        tested.answers(link, reply.clone());
        tested.pass(1000);
        assert_eq!(tested.take_notices(), [format!("lost 2: {code}")], "{reply:?}");
        assert_eq!(tested.log.iter().filter(|line| line.starts_with(code)).count(), 1, "{:?}", tested.log);
        tested.sends("later");
        assert_eq!(tested.take_notices(), [format!("lost 2: {code}")], "{reply:?}");
        assert_eq!((tested.take_closed(), tested.take_opened()), (vec![], None), "on the same link");
        tested.take_sent();
        tested.answers(link, bulk(run_id("2")));
        tested.answers(link, bulk(hello("2", 9, None)));
        // The epoch is that of the peer: this side says hello in it, before it sends anything.
        tested.answers(link, bulk(hello("2", 9, None)));
        tested.sends("at last");
        assert_eq!(tested.take_commands(), ["hello 0 in 1", "hello 0 in 9", "message 0 in 9: at last"], "{reply:?}");
    }
}

#[test]
fn why_there_is_no_connection_is_told_apart() {
    let reason = || "because".to_owned();
    let cases = [
        (LinkFailure::Unreachable(reason()), "PEERDOWN", false),
        (LinkFailure::Lost(reason()), "PEERDOWN", false),
        (LinkFailure::Tls(reason()), "PEERTLS", true),
        (LinkFailure::Authentication(reason()), "PEERAUTH", true),
        (LinkFailure::Protocol(reason()), "PEERFOREIGN", true),
    ];
    for (failure, code, is_told_at_once) in cases {
        let mut tested = Tested::new();
        let (link, _) = tested.take_opened().unwrap();
        tested.sends("m");
        tested.does(|links, at| links.closed(at, link, failure.clone()));
        let expected = vec![format!("lost 2: {code}")];
        assert_eq!(tested.take_notices(), if is_told_at_once { expected.clone() } else { vec![] }, "{failure:?}");
        for _ in 0..50 {
            tested.pass(100);
            if let Some((link, _)) = tested.take_opened() {
                tested.does(|links, at| links.closed(at, link, failure.clone()));
            }
        }
        assert_eq!(tested.take_notices(), if is_told_at_once { vec![] } else { expected.clone() }, "{failure:?}");
        tested.sends("later");
        assert_eq!(tested.take_notices(), expected, "{failure:?}");
        let text = format!("{code} shard {} (h:7002)", id("2"));
        assert_eq!(tested.log.iter().filter(|line| line.starts_with(&text)).count(), 1, "{:?}", tested.log);
        assert!(tested.row().problem.is_some_and(|problem| problem.contains("because")));
    }
}

#[test]
fn a_connection_that_is_not_made_in_time_is_given_up() {
    let mut tested = Tested::new();
    let (link, _) = tested.take_opened().unwrap();
    tested.sends("m");
    tested.pass(LINK_OPEN_MS_MAX - 100);
    assert_eq!((tested.take_closed(), tested.take_notices()), (vec![], vec![]));
    tested.pass(100);
    assert_eq!((tested.take_closed(), tested.take_notices()), (vec![link], vec!["lost 2: PEERSILENT".to_owned()]));
    tested.does(|links, at| links.opened(at, link));
    assert_eq!(tested.take_commands(), [""; 0], "it comes too late");
}

#[test]
fn links_are_opened_again_each_second_and_less_often_when_the_shard_is_given_up() {
    let mut tested = Tested::new();
    let mut pauses = Vec::new();
    let (mut link, _) = tested.take_opened().unwrap();
    for _ in 0..10 {
        tested.does(|links, at| links.closed(at, link, LinkFailure::Unreachable("refused".into())));
        let closed_ms = tested.now_ms;
        link = loop {
            tested.pass(100);
            if let Some((link, _)) = tested.take_opened() {
                break link;
            }
        };
        pauses.push(tested.now_ms - closed_ms);
    }
    // Until 5000 ms have passed, which is ExecutionMaxIdleTime.
    let (early, late): (Vec<u64>, Vec<u64>) = pauses.iter().partition(|pause| **pause <= 1000);
    assert!((5..8).contains(&early.len()) && early.iter().all(|pause| *pause >= 800), "{pauses:?}");
    assert!(late.iter().all(|pause| (7500..=10_000).contains(pause)), "{pauses:?}");
    assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]), "they are not the same for all: {pauses:?}");
}

#[test]
fn a_shard_without_topology_gets_the_one_that_was_pushed_here_on_the_next_connection() {
    let mut tested = Tested::alone();
    let args = "RG.CLUSTERSET a b c d e 1 f 2 g 1 h 0 1 i pw@h:7001 j k 2 l 2 3 m pw@h:7002 n";
    let args: Vec<&[u8]> = args.split(' ').map(str::as_bytes).collect();
    let topology = topology("1", &[("1", 7001), ("2", 7002)]);
    tested.does(|links, at| links.set_topology(at, &topology, Some(&args)));
    let link = tested.meets_plain("r");
    broadcasts(&mut tested);
    tested.take_sent();
    tested.answers(link, error("ERRCLUSTER NULL cluster state"));
    assert_eq!(tested.take_closed(), [link]);
    tested.pass(1000);
    let link = tested.connects();
    let relayed =
        format!("RG.CLUSTERSETFROMSHARD a b c d e {} f 2 g 1 h 0 1 i pw@h:7001 j k 2 l 2 3 m pw@h:7002 n", id("2"));
    assert_eq!(tested.take_commands(), [relayed.as_str(), "RG.HELLO"]);
    tested.answers(link, status("OK"));
    tested.answers(link, bulk("r"));
    assert_eq!(tested.take_commands(), ["RG_NetworkTest test 0"]);
    tested.is_cut(link);
    tested.pass(1000);
    tested.connects();
    assert_eq!(tested.take_commands(), ["RG.HELLO"], "it has a topology now");
}

#[test]
fn a_shard_that_refuses_the_greeting_for_want_of_a_topology_is_connected_again_if_there_is_one_to_push() {
    for is_pushed in [false, true] {
        let mut tested = Tested::alone();
        let topology = topology("1", &[("1", 7001), ("2", 7002)]);
        let args: Vec<&[u8]> = vec![b"RG.CLUSTERSET"; 10];
        tested.does(|links, at| links.set_topology(at, &topology, is_pushed.then_some(&args)));
        let link = tested.connects();
        for _ in 0..2 {
            tested.take_sent();
            tested.answers(link, error("ERRCLUSTER NULL cluster state on hello msg"));
            tested.pass(1000);
        }
        if is_pushed {
            tested.connects();
            let relayed = tested.take_commands();
            assert!(relayed[0].starts_with("RG.CLUSTERSETFROMSHARD ") && relayed[1] == "RG.HELLO", "{relayed:?}");
        } else {
            assert_eq!((tested.take_commands(), tested.take_closed()), (vec!["RG.HELLO".to_owned()], vec![]));
        }
    }
}

#[test]
fn another_version_is_refused_with_one_warning_that_names_both() {
    let mut tested = Tested::new();
    tested.sends("m");
    for attempt in 0..3 {
        let link = tested.connects();
        tested.answers(link, bulk(run_id("2")));
        let versions = Versions { peer: Versions::OURS.peer + 1, module: "9.9.9", ..Versions::OURS };
        tested.answers(link, bulk(LinkHello { versions, terms: None }.encode()));
        assert_eq!(tested.take_closed(), [link]);
        let lost = if attempt == 0 { vec!["lost 2: PEERVERSION".to_owned()] } else { vec![] };
        assert_eq!(tested.take_notices(), lost);
    }
    let warnings: Vec<_> = tested.log.iter().filter(|line| line.starts_with("PEERVERSION ")).collect();
    assert_eq!(warnings.len(), 1, "{:?}", tested.log);
    let both = ["9.9.9 (messages 2, codec 1)", &format!("{} (messages 1, codec 1)", Versions::OURS.module)];
    assert!(both.iter().all(|version| warnings[0].contains(version)), "{warnings:?}");
    tested.sends("m");
    assert_eq!(tested.take_notices(), ["lost 2: PEERVERSION"]);
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2 is upgraded")));
    tested.answers(link, bulk(hello("2", 1, None)));
    tested.sends("m");
    assert_eq!(tested.take_notices(), ["ready 2"]);
}

#[test]
fn another_codec_is_another_version() {
    let mut tested = Tested::new();
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2")));
    let mut answer = LinkHello::decode(&hello("2", 0, None)).unwrap().terms;
    answer.as_mut().unwrap().epoch = 0;
    let versions = Versions { codec: 99, ..Versions::OURS };
    tested.answers(link, bulk(LinkHello { versions, terms: answer }.encode()));
    assert!(tested.log[0].starts_with("PEERVERSION ") && tested.log[0].contains("codec 99"), "{:?}", tested.log);
}

#[test]
fn a_shard_at_the_address_of_another_one_is_not_mistaken_for_it() {
    let mut tested = Tested::new();
    tested.meets("2", 0);
    tested.take_notices();
    let change = |port| topology("1", &[("1", 7001), ("2", port)]);
    tested.does(|links, at| links.set_topology(at, &change(7003), None));
    let link = tested.connects();
    tested.answers(link, bulk(run_id("3")));
    tested.answers(link, bulk(hello("3", 0, None)));
    assert!(tested.row().problem.is_some_and(|problem| problem.starts_with("PEERADDRESS ")));
    assert_eq!(tested.row().run.as_deref(), Some(run_id("2").as_bytes()));
    tested.sends("m");
    assert_eq!(tested.take_notices(), [""; 0], "the shard was not lost yet");
    tested.does(|links, at| links.set_topology(at, &change(7002), None));
    tested.take_closed();
    tested.meets("2", 0);
    assert_eq!((tested.take_notices(), tested.take_commands()), (vec![], vec!["message 0 in 0: m".to_owned()]));
}

#[test]
fn answers_to_a_hello_that_redgrease_does_not_give_close_the_link() {
    let answers = [
        bulk("garbage"),
        bulk([hello("2", 1, None), vec![0]].concat()),
        bulk(hello("2", 0, None)),
        bulk(hello("2", u64::MAX, None)),
        bulk(hello("2", 1, Some(u64::MAX))),
        LinkReply::Other,
        error("ERR no"),
    ];
    for answer in answers {
        let mut tested = Tested::new();
        let link = tested.meets("2", 0);
        tested.is_cut(link);
        tested.pass(5000);
        assert_eq!(tested.take_notices(), ["ready 2", "lost 2: PEERDOWN"]);
        let link = tested.connects();
        tested.answers(link, bulk(run_id("2")));
        assert_eq!(tested.take_commands().last().map(String::as_str), Some("hello 0 in 1"));
        tested.answers(link, answer.clone());
        assert_eq!(tested.take_closed().last(), Some(&link), "{answer:?}");
        let problem = tested.row().problem.unwrap_or_default();
        let expected = if answer == error("ERR no") { "PEERFAILED" } else { "PEERPROTOCOL" };
        assert!(problem.starts_with(expected), "{answer:?}: {problem}");
    }
}

#[test]
fn shards_that_never_agree_on_an_epoch_are_not_asked_forever() {
    let mut tested = Tested::new();
    let link = tested.connects();
    tested.answers(link, bulk(run_id("2")));
    for epoch in 1..100 {
        if !tested.take_closed().is_empty() {
            assert_eq!(epoch, 10);
            return assert!(tested.row().problem.unwrap().starts_with("PEERPROTOCOL "));
        }
        tested.answers(link, bulk(hello("2", epoch, None)));
    }
    panic!("the link was never closed");
}

#[test]
fn links_to_shards_that_stay_are_kept() {
    let mut tested = Tested::new();
    tested.meets("2", 0);
    tested.take_notices();
    let three = topology("1", &[("1", 7001), ("2", 7002), ("3", 7003)]);
    for _ in 0..1000 {
        tested.does(|links, at| links.set_topology(at, &three, None));
    }
    assert_eq!((tested.take_closed(), tested.take_opened().map(|(_, port)| port)), (vec![], Some(7003)));
    assert!(tested.links.is_ready(id("2")));
    let without = topology("1", &[("1", 7001), ("3", 7003)]);
    tested.does(|links, at| links.set_topology(at, &without, None));
    assert_eq!((tested.take_closed().len(), tested.take_notices()), (1, vec!["lost 2: PEERGONE".to_owned()]));
    tested.sends("m");
    assert_eq!(tested.take_notices(), ["lost 2: PEERGONE"]);
}

#[test]
fn a_shard_that_moves_keeps_its_messages() {
    let mut tested = Tested::new();
    let link = tested.meets("2", 0);
    tested.take_notices();
    tested.sends("m");
    tested.take_sent();
    tested.does(|links, at| links.set_topology(at, &topology("1", &[("1", 7001), ("2", 9000)]), None));
    assert_eq!(tested.take_closed(), [link]);
    tested.meets("2", 0);
    assert_eq!((tested.take_commands(), tested.take_notices()), (vec!["message 0 in 0: m".to_owned()], vec![]));
}

#[test]
fn a_replica_and_a_cluster_of_one_have_no_links() {
    let mut tested = Tested::new();
    tested.meets("2", 0);
    tested.take_notices();
    tested.does(|links, at| links.set_topology(at, &topology("1", &[("2", 7002), ("3", 7003)]), None));
    assert_eq!((tested.links.rows(), tested.take_closed().len()), (vec![], 1));
    assert!(!tested.links.needs_ticks());
    tested.does(|links, at| links.set_topology(at, &topology("1", &[("1", 7001)]), None));
    assert_eq!((tested.links.rows(), tested.take_notices()), (vec![], vec!["lost 2: PEERGONE".to_owned()]));
}

#[test]
fn with_another_id_this_shard_is_another_one() {
    let mut tested = Tested::new();
    let link = tested.meets("2", 0);
    tested.take_notices();
    tested.does(|links, at| links.set_topology(at, &topology("9", &[("9", 7001), ("2", 7002)]), None));
    assert_eq!((tested.take_closed(), tested.take_notices()), (vec![link], vec!["lost 2: PEERGONE".to_owned()]));
    tested.meets("2", 0);
    tested.sends("m");
    let sender = tested.take_sent().pop().unwrap()[1].clone();
    assert_eq!(sender, id("9").as_str().as_bytes());
}

#[test]
fn topologies_may_change_at_any_time() {
    let with = topology("1", &[("1", 7001), ("2", 7002)]);
    let without = topology("1", &[("1", 7001)]);
    let mut tested = Tested::new();
    let link = tested.connects();
    tested.answers(link, status("not a run"));
    // While the next greeting is due.
    tested.does(|links, at| links.set_topology(at, &without, None));
    tested.pass(2000);
    tested.answers(link, bulk("late"));
    tested.does(|links, at| links.set_topology(at, &with, None));
    let link = tested.meets("2", 0);
    tested.is_cut(link);
    for _ in 0..3 {
        tested.does(|links, at| links.set_topology(at, &with, None));
    }
    tested.pass(1000);
    tested.meets("2", 0);
    assert!(tested.links.is_ready(id("2")));
    tested.does(|links, at| links.opened(at, link));
    tested.does(|links: &mut Links, at| links.closed(at, link, LinkFailure::Lost("late".into())));
    assert!(tested.links.is_ready(id("2")), "what belongs to former links is ignored");
}
