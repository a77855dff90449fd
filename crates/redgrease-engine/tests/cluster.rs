//! Commands about the cluster, and engines that are linked with each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use redgrease_core::id::{Database, ShardId};
use redgrease_core::render::Reply;
use redgrease_engine::cluster::topology::{Address, Shard, Topology};
use redgrease_engine::effect::Argv;
use redgrease_engine::id::{ClientNo, LinkNo, TimerNo};
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::{Caller, Command, Inside, LinkReply};
use redgrease_engine::{Capabilities, Config, Effect, Engine, Input, Machine, Situation, Work};

fn id(name: &str) -> ShardId {
    ShardId::padded(name.as_bytes()).unwrap()
}

fn shard(name: &str, port: u16, slots: &[(u16, u16)]) -> Shard {
    let address = Address { host: "127.0.0.1".into(), port, unix_socket: None, password: None };
    Shard { id: id(name), address, slots: slots.to_vec() }
}

fn topology(me: &str, shards: &[Shard]) -> Topology {
    Topology { me: id(me), shards: shards.to_vec() }
}

/// A server with an engine, whose driver the test plays.
struct Server {
    engine: Engine,
    now_ms: u64,
    /// What the server itself says.
    topology: Topology,
    timers: BTreeSet<(u64, TimerNo)>,
    replies: BTreeMap<u64, Reply>,
    blocked: BTreeSet<u64>,
    opened: VecDeque<(LinkNo, Address)>,
    sent: VecDeque<(LinkNo, Argv)>,
    closed: Vec<LinkNo>,
    clients: u64,
}

impl Server {
    fn new(run: &str) -> Server {
        let config = Config::new(Machine { cores: 2, memory_bytes: 1 << 30 });
        let mut server = Server {
            engine: Engine::new(config, Err("no interpreter".into()), run.into(), Capabilities::default()),
            now_ms: 1000,
            topology: Topology::standalone(),
            timers: BTreeSet::new(),
            replies: BTreeMap::new(),
            blocked: BTreeSet::new(),
            opened: VecDeque::new(),
            sent: VecDeque::new(),
            closed: Vec::new(),
            clients: 0,
        };
        server.input(Input::Started);
        server
    }

    fn input(&mut self, input: Input<'_>) {
        let situation = Situation { now_ms: self.now_ms, ..Situation::default() };
        let mut effects = Vec::new();
        self.engine.handle(&situation, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::SetTimer { timer, ms } => _ = self.timers.insert((self.now_ms + ms, timer)),
                Effect::Reply { client, answer } => _ = self.replies.insert(client.0, answer.into_reply()),
                Effect::Block(client) => _ = self.blocked.insert(client.0),
                Effect::OpenLink { link, address } => self.opened.push_back((link, address)),
                Effect::SendOnLink { link, command } => self.sent.push_back((link, command)),
                Effect::CloseLink(link) => self.closed.push(link),
                Effect::ReadTopology => self.input(Input::Topology(self.topology.clone())),
                Effect::Then(step) => self.input(Input::Then(step)),
                _ => {}
            }
        }
    }

    /// Time passes, and what is due is done.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some((at_ms, timer)) = self.timers.first().copied().filter(|(at_ms, _)| *at_ms <= end_ms) {
            self.timers.remove(&(at_ms, timer));
            self.now_ms = at_ms.max(self.now_ms);
            self.input(Input::Timer(timer));
        }
        self.now_ms = end_ms;
        self.work();
    }

    fn work(&mut self) {
        while self.engine.has_work(Work::Peers) {
            self.input(Input::Work(Work::Peers));
        }
    }

    /// The reply to a command, if it is there.
    fn command(&mut self, command: Command<'_>, inside: Inside) -> (u64, Option<Reply>) {
        self.clients += 1;
        let caller = Caller { user: None, database: Database(0), administers: true, inside };
        self.input(Input::Command { client: ClientNo(self.clients), caller: &caller, command });
        (self.clients, self.replies.remove(&self.clients))
    }

    fn run(&mut self, command: Command<'_>) -> Reply {
        self.command(command, Inside::Nothing).1.expect("it is answered at once")
    }

    /// The same, as one would see it.
    fn text(&mut self, command: Command<'_>) -> String {
        match self.run(command) {
            Reply::Simple(text) => text,
            Reply::Error(text) => format!("-{text}"),
            Reply::Bulk(bytes) => String::from_utf8(bytes).unwrap(),
            other => panic!("unexpected reply {other:?}"),
        }
    }

    fn pushes(&mut self, args: &str, from_shard: bool) -> String {
        let args: Vec<&[u8]> = args.split(' ').map(str::as_bytes).collect();
        self.text(Command::SetCluster { args: &args, from_shard })
    }

    fn tells(&mut self, topology: Topology) {
        self.topology = topology;
        self.input(Input::Topology(self.topology.clone()));
    }

    fn network_test<'a>(number: &'a [u8]) -> Command<'a> {
        Command::PeerCommand { sender: b"7", run: b"r", function: b"RG_NetworkTest", payload: b"test", number }
    }
}

const PUSHED: &str = "RG.CLUSTERSET HASHFUNC CRC16 NUMSLOTS 16384 MYID 1 RANGES 2 \
                      SHARD 1 SLOTRANGE 0 8191 ADDR pw@127.0.0.1:7001 MASTER \
                      SHARD 2 SLOTRANGE 8192 16383 ADDR pw@127.0.0.1:7002 MASTER";

#[test]
fn without_a_cluster_shards_are_refused() {
    let mut server = Server::new("0");
    assert_eq!(server.text(Command::InfoCluster), "no cluster mode");
    assert_eq!(server.text(Command::Hello), "-ERRCLUSTER NULL cluster state on hello msg");
    assert_eq!(server.text(Server::network_test(b"0")), "-ERRCLUSTER NULL cluster state");
    assert_eq!(server.text(Command::NetworkTest), "OK");
    assert_eq!(server.text(Command::RefreshCluster), "OK");
    assert_eq!(server.opened.len(), 0);
}

#[test]
fn a_cluster_of_one_shard_says_hello_and_is_none() {
    let mut server = Server::new("0");
    server.tells(topology("a", &[shard("a", 7001, &[(0, 16383)])]));
    assert_eq!(server.text(Command::InfoCluster), "no cluster mode");
    let run = server.text(Command::Hello);
    assert_eq!((run.len(), run.as_str()), (40, server.engine.run_id()));
    assert_eq!(server.text(Server::network_test(b"0")), "-ERRCLUSTER Uninitialized cluster state");
}

#[test]
fn the_nodes_are_listed_with_what_is_known_of_them() {
    let mut server = Server::new("0");
    let mut shards = vec![shard("a", 7001, &[(5, 9), (20, 30)]), shard("b", 7002, &[(0, 4)])];
    shards[1].address.unix_socket = Some("/tmp/b".into());
    server.tells(topology("a", &shards));
    let (link, address) = server.opened.pop_front().unwrap();
    assert_eq!(address, shards[1].address);
    server.text(Command::NetworkTest);
    let run = server.engine.run_id().to_owned();
    let bulk = |text: &str| Reply::bulk(text);
    let node = |name: &str, port, socket: &str, run: Reply, slots: (i64, i64), pending| {
        let fields = [
            ("id", bulk(id(name).as_str())),
            ("ip", bulk("127.0.0.1")),
            ("port", Reply::Int(port)),
            ("unixSocket", bulk(socket)),
            ("runid", run),
            ("minHslot", Reply::Int(slots.0)),
            ("maxHslot", Reply::Int(slots.1)),
            ("pendingMessages", Reply::Int(pending)),
        ];
        Reply::Array(fields.into_iter().flat_map(|(name, value)| [bulk(name), value]).collect())
    };
    let info = |server: &mut Server, other: Reply, pending| {
        let nodes =
            vec![node("a", 7001, "None", bulk(&run), (5, 9), 0), node("b", 7002, "/tmp/b", other, (0, 4), pending)];
        let (id, run) = (bulk(id("a").as_str()), bulk(&run));
        let expected = vec![bulk("MyId"), id, bulk("MyRunId"), run, Reply::Array(nodes)];
        assert_eq!(server.run(Command::InfoCluster), Reply::Array(expected));
    };
    info(&mut server, Reply::Null, 1);
    server.input(Input::LinkOpened(link));
    server.input(Input::LinkReply { link, reply: LinkReply::Bulk(b"its-run".to_vec()) });
    info(&mut server, bulk("its-run"), 1);
    server.input(Input::LinkReply { link, reply: LinkReply::Status(b"OK".to_vec()) });
    info(&mut server, bulk("its-run"), 0);
}

#[test]
fn a_pushed_topology_is_valid_until_the_next_one_or_a_refresh() {
    let mut server = Server::new("0");
    assert_eq!(server.pushes(PUSHED, false), "OK");
    let (_, address) = server.opened.pop_front().unwrap();
    assert_eq!((address.port, address.password.as_deref()), (7002, Some(b"pw".as_slice())));
    server.tells(topology("a", &[shard("a", 1, &[(0, 9)]), shard("b", 2, &[(10, 19)])]));
    assert_eq!((server.opened.len(), server.closed.len()), (0, 0), "it does not matter what the server says");
    let other = PUSHED.replace("7002", "7003");
    assert_eq!(server.pushes(&other.replace("CLUSTERSET", "CLUSTERSETFROMSHARD"), true), "OK");
    assert_eq!(server.opened.len(), 0, "a shard pushes to those that have none");
    assert_eq!(server.pushes(&other, false), "OK");
    assert_eq!(server.opened.pop_front().unwrap().1.port, 7003);
    assert_eq!(server.text(Command::RefreshCluster), "OK");
    assert_eq!(server.opened.pop_front().unwrap().1.port, 2);
    server.tells(topology("a", &[shard("a", 1, &[(0, 9)]), shard("b", 3, &[(10, 19)])]));
    assert_eq!(server.opened.pop_front().unwrap().1.port, 3, "it follows the server again");
    for _ in 0..3 {
        assert_eq!(server.text(Command::RefreshCluster), "OK");
    }
    assert_eq!((server.opened.len(), server.closed.len()), (0, 3), "nothing has changed");
}

#[test]
fn a_shard_without_topology_takes_the_one_of_another_shard() {
    let mut server = Server::new("0");
    assert_eq!(server.pushes(&PUSHED.replace("CLUSTERSET", "CLUSTERSETFROMSHARD"), true), "OK");
    assert_eq!(server.opened.len(), 1);
    let malformed = PUSHED.replace("pw@", "");
    for from_shard in [false, true] {
        assert_eq!(server.pushes(&malformed, from_shard), "-Could not parse cluster set arguments");
        assert_eq!(server.pushes("RG.CLUSTERSET", from_shard), "-Could not parse cluster set arguments");
    }
    assert_eq!(server.pushes(&PUSHED.replace("RANGES 2", "RANGES 1"), false), "OK");
    assert_eq!(server.text(Command::InfoCluster), "no cluster mode");
}

#[test]
fn a_thousand_topologies_in_a_row_do_no_harm() {
    let mut server = Server::new("0");
    let other = PUSHED.replace("SHARD 2", "SHARD 3");
    for _ in 0..500 {
        server.pushes(PUSHED, false);
        server.pushes(&other, false);
    }
    assert_eq!((server.opened.len(), server.closed.len()), (1000, 999));
    let links: BTreeSet<LinkNo> = server.opened.iter().map(|(link, _)| *link).collect();
    assert_eq!(links.len(), 1000, "each has a number of its own");
    // Links are looked at, and registrations compared.
    assert_eq!(server.timers.len(), Server::new("0").timers.len() + 2);
    server.pass(1000);
    assert_eq!(server.engine.links().len(), 1);
}

#[test]
fn messages_of_shards_are_answered_in_the_words_of_redgears() {
    let mut server = Server::new("0");
    server.pushes(PUSHED, false);
    let table =
        [(b"0".as_slice(), "OK"), (b"0", "duplicate message ignored"), (b"1", "OK"), (b"x", "-bad msg id given")];
    for (number, expected) in table {
        assert_eq!(server.text(Server::network_test(number)), expected);
    }
    let unknown = Command::PeerCommand { sender: b"7", run: b"r", function: b"f", payload: b"", number: b"2" };
    assert_eq!(server.text(unknown), "-can not find the callback requested");
}

#[test]
fn a_message_is_acknowledged_late_when_many_wait_unless_its_client_cannot_be_blocked() {
    use redgrease_core::peer::link::{
        HELLO_FUNCTION, LinkHello, LinkPayload, MESSAGE_FUNCTION, Terms, Versions, run_id,
    };
    let mut server = Server::new("0");
    server.pushes(PUSHED, false);
    let terms = Terms { shard: id("1"), epoch: 0, received: None, window_bytes: 1 << 20, part_bytes: 1 << 20 };
    let hello = LinkHello { versions: Versions::OURS, terms: Some(terms) }.encode();
    let run = run_id("2");
    let command = |function, payload, number| Command::PeerCommand {
        sender: b"2",
        run: run.as_bytes(),
        function,
        payload,
        number,
    };
    assert!(matches!(server.run(command(HELLO_FUNCTION, &hello, b"0")), Reply::Bulk(_)));
    // The message is not one: it is refused when it is handled.
    let long = LinkPayload::Whole { epoch: 0, message: &vec![0xff; 5 << 20] }.encode();
    let (client, reply) = server.command(command(MESSAGE_FUNCTION, &long, b"0"), Inside::Nothing);
    assert_eq!((reply, server.blocked.contains(&client)), (None, true));
    let (_, reply) = server.command(command(MESSAGE_FUNCTION, &long, b"1"), Inside::Transaction);
    assert_eq!(reply, Some(Reply::Simple("OK".into())));
    server.work();
    assert_eq!(server.replies.remove(&client), Some(Reply::Simple("OK".into())));
}

/// Two servers, between which everything arrives at once.
struct Two {
    servers: [Server; 2],
    /// The links of each one.
    links: [Vec<LinkNo>; 2],
}

impl Two {
    fn new() -> Two {
        let shards = [shard("a", 0, &[(0, 9)]), shard("b", 1, &[(10, 19)])];
        let servers = ["a", "b"].map(|name| {
            let mut server = Server::new(name);
            server.tells(topology(name, &shards));
            server
        });
        Two { servers, links: [Vec::new(), Vec::new()] }
    }

    /// Handles everything that is on its way, except that `silent` does not answer.
    fn exchange(&mut self, silent: Option<usize>) {
        for from in [0, 1, 0, 1] {
            let to = 1 - from;
            while let Some((link, address)) = self.servers[from].opened.pop_front() {
                assert_eq!(usize::from(address.port), to);
                self.links[from].push(link);
                self.servers[from].input(Input::LinkOpened(link));
            }
            while let Some((link, argv)) = self.servers[from].sent.pop_front() {
                if silent == Some(to) || silent == Some(from) {
                    continue;
                }
                let reply = match argv.args().as_slice() {
                    [b"RG.HELLO"] => self.servers[to].run(Command::Hello),
                    [b"RG.INNERMSGCOMMAND", sender, run, function, payload, number] => {
                        self.servers[to].run(Command::PeerCommand { sender, run, function, payload, number })
                    }
                    other => panic!("unexpected command {other:?}"),
                };
                let reply = match reply {
                    Reply::Simple(text) => LinkReply::Status(text.into()),
                    Reply::Bulk(bytes) => LinkReply::Bulk(bytes),
                    Reply::Error(text) => LinkReply::Error(text.into()),
                    _ => LinkReply::Other,
                };
                self.servers[from].input(Input::LinkReply { link, reply });
            }
            self.servers[from].work();
        }
    }

    fn pass(&mut self, ms: u64, silent: Option<usize>) {
        for _ in 0..ms / 100 {
            for server in &mut self.servers {
                server.pass(100);
            }
            self.exchange(silent);
        }
    }

    fn have_links(&self) -> [bool; 2] {
        [self.servers[0].engine.has_link(id("b")), self.servers[1].engine.has_link(id("a"))]
    }
}

#[test]
fn engines_find_each_other_and_notice_when_one_is_silent_and_when_it_is_back() {
    let mut two = Two::new();
    assert_eq!(two.have_links(), [false, false]);
    two.exchange(None);
    assert_eq!(two.have_links(), [true, true]);
    two.pass(10_000, None);
    assert_eq!(two.have_links(), [true, true], "signs of life are exchanged");
    two.pass(4900, Some(1));
    assert!(two.servers[0].engine.has_link(id("b")));
    two.pass(1200, Some(1));
    let problem = two.servers[0].engine.links()[0].problem.clone().unwrap();
    assert!(problem.starts_with("PEERSILENT ") && problem.contains("5000 ms"), "{problem}");
    assert!(!two.servers[0].engine.has_link(id("b")));
    two.pass(11_000, None);
    assert_eq!(two.have_links(), [true, true]);
    let link = *two.links[0].last().unwrap();
    two.servers[0].input(Input::LinkClosed { link, failure: LinkFailure::Lost("reset".into()) });
    assert!(!two.servers[0].engine.has_link(id("b")));
    two.pass(1100, None);
    assert_eq!(two.have_links(), [true, true]);
}

#[test]
fn the_time_until_a_shard_is_given_up_can_be_configured() {
    let mut two = Two::new();
    two.exchange(None);
    for server in &mut two.servers {
        let words = [b"ExecutionMaxIdleTime".as_slice(), b"300", b"SendMsgRetries", b"0"];
        server.run(Command::ConfigSet { words: &words });
    }
    two.pass(1400, Some(1));
    let problem = two.servers[0].engine.links()[0].problem.clone().unwrap();
    assert!(problem.contains("does not answer for 300 ms"), "{problem}");
}
