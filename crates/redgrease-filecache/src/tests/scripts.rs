//! The script in the server against the model in Rust: random operations, equal replies.

use std::collections::{BTreeMap, HashMap};

use redgrease_cache_rules::protocol::{Bounds, Choice, Doomed, Mode, Op, Reason, Reply, Request, Session, Token};
use redgrease_cache_rules::{Answer, Entry, Index, Key};

use super::server::TestServer;
use crate::store::{script, wire};

/// Counts the requests that are answered without the helpers and those that need them.
const WAYS: &str = "ways";

/// The script of an operation, with a given time instead of the server's.
fn script_with_given_time(operation: &str) -> redis::Script {
    let body = &script::of(operation).body;
    let asked = "local clock = call('TIME')\nlocal now = clock[1] * 1000000 + clock[2]";
    assert!(body.contains(asked));
    let at_once = "local at_once = fast()\n";
    let counted =
        format!("{at_once}redis.call('HINCRBY', '{WAYS}', op .. (at_once and ' at once' or ' in full'), 1)\n");
    let told = body.replace(asked, "local now = tonumber(table.remove(ARGV))").replace(at_once, &counted);
    redis::Script::new(&told)
}

struct Pair {
    scripts: HashMap<&'static str, redis::Script>,
    connection: redis::Connection,
    prefix: String,
    model: Index,
    now: u64,
    log: Vec<String>,
}

impl Pair {
    fn ask(&mut self, request: Request) -> Answer {
        self.log.push(format!("{} {request:?}", self.now));
        let arguments = wire::arguments(request.cache, &request.op);
        let script =
            self.scripts.entry(arguments.operation).or_insert_with(|| script_with_given_time(arguments.operation));
        let mut invocation = script.prepare_invoke();
        for key in wire::KEYS {
            invocation.key(format!("{}:{key}", self.prefix));
        }
        for argument in arguments.iter() {
            invocation.arg(argument);
        }
        let value = invocation.arg(self.now).invoke::<redis::Value>(&mut self.connection);
        let value = value.unwrap_or_else(|error| panic!("{error}\n{}", self.history()));
        let mut given =
            wire::answer(&request.op, value.clone()).unwrap_or_else(|| panic!("{value:?}\n{}", self.history()));
        let mut expected = self.model.apply(self.now, &request);
        let order =
            |doomed: &mut Vec<Doomed>| doomed.sort_by(|a, b| (&a.key, a.entry.fence).cmp(&(&b.key, b.entry.fence)));
        order(&mut given.doomed);
        order(&mut expected.doomed);
        assert_eq!(given, expected, "\n{}", self.history());
        given
    }

    fn history(&self) -> String {
        self.log.join("\n")
    }
}

const CACHE: u64 = 0xc0ffee;

#[test]
fn the_script_does_what_the_model_does() {
    let server = TestServer::start();
    let seed = std::env::var("REDGREASE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("REDGREASE_TEST_SEED={seed}");
    for round in 0..80 {
        one_round(&server, seed.wrapping_add(round), 400);
    }
    let ways: BTreeMap<String, u64> = redis::cmd("HGETALL").arg(WAYS).query(&mut server.connection()).unwrap();
    println!("{ways:?}");
    for operation in ["lookup", "acquire", "commit"] {
        for way in ["at once", "in full"] {
            let times = ways.get(&format!("{operation} {way}")).copied().unwrap_or(0);
            assert!(times > 20, "{operation} was answered {way} {times} times: {ways:?}");
        }
    }
}

fn one_round(server: &TestServer, seed: u64, steps: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pair = Pair {
        scripts: HashMap::new(),
        connection: server.connection(),
        prefix: format!("{{{seed}}}"),
        model: Index::default(),
        now: 1_700_000_000_000_000,
        log: vec![format!("seed {seed}")],
    };
    let keys: Vec<Key> = vec![b"a".to_vec(), b"b\0\xff".to_vec(), vec![b'k'; 300], b"d".to_vec(), b"e".to_vec()];
    let small = |random: &mut fastrand::Rng, most: u64| if random.bool() { 0 } else { random.u64(1..most) };
    // Half of the rounds are typical caches: they use few of the features.
    let is_plain = random.bool();
    let bounds = |random: &mut fastrand::Rng| {
        if is_plain {
            let (max_bytes, max_entry_bytes) = (small(random, 1000), small(random, 200));
            return Bounds { max_bytes, max_entry_bytes, low_mark: 900, ..Bounds::default() };
        }
        Bounds {
            max_bytes: small(random, 400),
            max_entries: small(random, 5),
            max_entry_bytes: small(random, 200),
            max_age: small(random, 60_000_000),
            max_idle: small(random, 60_000_000),
            min_free_bytes: 0,
            low_mark: random.u64(0..=1000),
        }
    };
    let first = Session { id: 999, lease: 30_000_000, new: true, owner: "builder:1".to_owned() };
    assert_eq!(pair.ask(Request { cache: CACHE, op: Op::Info }).reply, Reply::Lost);
    let start = Op::Rebuild { session: first.clone(), instance: 7, bounds: bounds(&mut random), wipe: false };
    pair.ask(Request { cache: CACHE, op: start });
    assert_eq!(pair.ask(Request { cache: CACHE, op: Op::Info }).reply, Reply::Rebuilding);
    pair.ask(Request { cache: CACHE, op: Op::Finish { session: 999, instance: 7 } });

    let mut sessions = vec![1u64, 2, 3];
    let mut granted: Vec<(Key, Token, u64, Mode)> = Vec::new();
    let mut tokens: Vec<(Key, Token)> = Vec::new();
    let mut fences: BTreeMap<u64, (Key, [u8; 16])> = BTreeMap::new();
    for number in 0..steps as u64 {
        pair.now += match random.u8(0..10) {
            0 => random.u64(1_000_000..20_000_000),
            1..4 => 0,
            _ => random.u64(1..1_000_000),
        } / if is_plain { 20 } else { 1 };
        let key = keys[random.usize(..keys.len())].clone();
        let at = random.usize(..sessions.len());
        let session = Session { id: sessions[at], lease: 5_000_000, new: random.bool(), owner: format!("host:{at}") };
        let token = if random.u8(..4) == 0 {
            tokens
                .get(random.usize(..tokens.len().max(1)))
                .map_or(Token { session: session.id, number }, |(_, token)| *token)
        } else {
            Token { session: session.id, number }
        };
        let session = Session { id: token.session, owner: format!("host:{}", token.session), ..session };
        let mode = if random.bool() { Mode::Create } else { Mode::Replace };
        let entry = |fence: u64, random: &mut fastrand::Rng| Entry {
            fence,
            size: random.u64(0..150),
            created: 0,
            expires: 0,
            ttl: if is_plain && random.bool() { 0 } else { small(random, 30_000_000) },
            pinned: false,
            digest: [random.u8(..3); 16],
            metadata: vec![b'm'; random.usize(..3)],
        };
        let unlinked = |random: &mut fastrand::Rng, fences: &BTreeMap<u64, (Key, [u8; 16])>| {
            let most = if is_plain && random.bool() { 0 } else { 3 };
            fences
                .iter()
                .filter(|_| random.u8(..6) == 0)
                .take(most)
                .map(|(fence, (key, _))| (key.clone(), *fence))
                .collect::<Vec<_>>()
        };
        let op = match random.u8(..40) {
            0..6 => Op::Lookup { key: key.clone(), pin: random.bool().then(|| (token, session.clone())) },
            6 => Op::Peek { key: key.clone() },
            7..15 => Op::Acquire {
                key: key.clone(),
                token,
                session: session.clone(),
                mode,
                reserve: random.u64(0..120),
                wait: random.bool() && !(is_plain && random.bool()),
                hit: random.u8(..4) == 0,
                releases: {
                    let most = if is_plain && random.bool() { 0 } else { 2 };
                    // The latest ones exist.
                    let (latest, one_in) = if is_plain { (6, 4) } else { (usize::MAX, 9) };
                    tokens.iter().rev().take(latest).filter(|_| random.u8(..one_in) == 0).take(most).cloned().collect()
                },
            },
            15 if !granted.is_empty() => {
                let (key, token, ..) = granted[random.usize(..granted.len())].clone();
                Op::Reserve { key, token, bytes: random.u64(0..300) }
            }
            16..23 if !granted.is_empty() => {
                let (key, token, fence, mode) = granted[random.usize(..granted.len())].clone();
                let unlinked = unlinked(&mut random, &fences);
                Op::Commit { key, token, mode, entry: entry(fence, &mut random), unlinked, pin: random.u8(..4) == 0 }
            }
            23 if !granted.is_empty() => {
                let (key, token, ..) = granted[random.usize(..granted.len())].clone();
                Op::Abort { key, token }
            }
            24..27 => Op::Release { leases: tokens.iter().filter(|_| random.u8(..5) == 0).take(4).cloned().collect() },
            27 => Op::Remove {
                key: key.clone(),
                fence: if random.bool() {
                    None
                } else {
                    fences.keys().nth(random.usize(..fences.len().max(1))).copied()
                },
                reason: Reason::Deleted,
            },
            28 => Op::Touch { key: key.clone(), ttl: random.bool().then(|| small(&mut random, 30_000_000)) },
            29 => Op::Pin { key: key.clone(), pinned: random.bool() },
            30 => Op::Renew { session: session.clone(), unlinked: unlinked(&mut random, &fences) },
            31 => {
                let id = session.id;
                if random.bool() {
                    sessions[at] += 100;
                }
                Op::Close { session: id }
            }
            32 => Op::Evict {
                choice: match random.u8(..5) {
                    0 => Choice::Everything,
                    1 => Choice::UsedBefore(pair.now - random.u64(0..5_000_000)),
                    _ => Choice::ToBytes(random.u64(0..300)),
                },
            },
            33 | 34 => Op::Sweep,
            35 => Op::Judge {
                files: fences
                    .iter()
                    .filter(|_| random.u8(..3) == 0)
                    .take(6)
                    .map(|(fence, (key, digest))| (key.clone(), *fence, *digest))
                    .collect(),
            },
            36 => match random.u8(..3) {
                0 => Op::Break { key: key.clone() },
                1 => Op::Alive { sessions: sessions.clone() },
                _ => Op::Configure { bounds: bounds(&mut random) },
            },
            37 => Op::Audit { repair: random.bool() },
            38 => Op::Open { instance: random.u64(6..8) },
            _ => Op::Info,
        };
        let answer = pair.ask(Request { cache: CACHE, op: op.clone() });
        match (&op, &answer.reply) {
            (Op::Acquire { key, token, mode, .. }, Reply::Granted { fence, .. }) => {
                granted.push((key.clone(), *token, *fence, *mode));
                fences.insert(*fence, (key.clone(), [random.u8(..3); 16]));
                tokens.push((key.clone(), *token));
            }
            (Op::Acquire { key, token, .. } | Op::Lookup { key, pin: Some((token, _)) }, _) => {
                tokens.push((key.clone(), *token))
            }
            (Op::Commit { key, entry, .. }, Reply::Committed(_)) => {
                fences.insert(entry.fence, (key.clone(), entry.digest));
            }
            (_, Reply::SessionLost) => sessions[at] += 100,
            _ => {}
        }
        if let Reply::Audited(audit) = answer.reply {
            assert!(
                audit.bytes.0 == audit.bytes.1
                    && audit.reserved.0 == audit.reserved.1
                    && audit.garbage.0 == audit.garbage.1
                    && audit.strays == 0,
                "{audit:?}\n{}",
                pair.history()
            );
        }
        if granted.len() > 6 {
            granted.remove(0);
        }
        if random.u16(..150) == 0 {
            rebuild(&mut pair, &mut random, &keys);
        }
    }
    pair.ask(Request { cache: CACHE, op: Op::Info });
    let foreign = pair.ask(Request { cache: CACHE + 1, op: Op::Info });
    assert_eq!(foreign.reply, Reply::Foreign { cache: CACHE });
    let taken = Op::Rebuild { session: first, instance: 7, bounds: Bounds::default(), wipe: false };
    assert_eq!(pair.ask(Request { cache: CACHE + 1, op: taken }).reply, Reply::Foreign { cache: CACHE });
}

fn rebuild(pair: &mut Pair, random: &mut fastrand::Rng, keys: &[Key]) {
    let id = random.u64(5000..);
    let session = Session { id, lease: 1_000_000, new: true, owner: "builder:2".to_owned() };
    let wipe = random.u8(..4) == 0;
    let instance = random.u64(6..9);
    let op = Op::Rebuild { session, instance, bounds: Bounds { low_mark: 900, ..Bounds::default() }, wipe };
    if !matches!(pair.ask(Request { cache: CACHE, op }).reply, Reply::Granted { .. } | Reply::Changed) {
        return;
    }
    let other = Session { id: id + 1, lease: 1_000_000, new: true, owner: "builder:3".to_owned() };
    let op = Op::Rebuild { session: other, instance, bounds: Bounds::default(), wipe: false };
    assert_eq!(pair.ask(Request { cache: CACHE, op }).reply, Reply::Rebuilding);
    let now = pair.now;
    let mut entries = Vec::new();
    for key in keys {
        if random.bool() {
            continue;
        }
        let fence = now - random.u64(0..5_000_000);
        let entry = Entry {
            fence,
            size: random.u64(..100),
            created: fence,
            expires: if random.bool() { 0 } else { now + random.u64(..10) - 5 },
            ttl: 0,
            pinned: false,
            digest: [1; 16],
            metadata: Vec::new(),
        };
        entries.push((key.clone(), entry, now - random.u64(0..100) + 50));
    }
    pair.ask(Request { cache: CACHE, op: Op::Restore { session: id, entries } });
    pair.now += 1;
    pair.ask(Request { cache: CACHE, op: Op::Finish { session: id, instance } });
}
