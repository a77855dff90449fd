//! Links to peers of all kinds, over real sockets. TLS is tested with real servers in `tests/e2e/test_cluster_links.py`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use redgrease_engine::Input;
use redgrease_engine::cluster::topology::Address;
use redgrease_engine::effect::Argv;
use redgrease_engine::id::LinkNo;
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::LinkReply;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::links::Links;
use super::target::{Credentials, Target};

/// No report takes this long.
const DEADLINE: Duration = Duration::from_secs(20);

const LINK: LinkNo = LinkNo(1);

fn address(port: u16) -> Address {
    Address { host: "127.0.0.1".to_owned(), port, unix_socket: None, password: None }
}

fn plain(address: Address) -> Target {
    Target { address, credentials: None, tls: None }
}

fn with_password(port: u16) -> Target {
    let credentials = Credentials { user: Some(b"u".to_vec()), password: b"p".to_vec() };
    Target { credentials: Some(credentials), ..plain(address(port)) }
}

/// A peer: the port on which it accepts one connection.
fn peer(talk: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || talk(listener.accept().unwrap().0));
    port
}

/// A peer that reads something, says these bytes, and closes when the other side does.
fn saying(bytes: &'static [u8]) -> u16 {
    peer(move |mut stream| {
        let mut seen = [0; 4096];
        let _ = stream.read(&mut seen).unwrap();
        stream.write_all(bytes).unwrap();
        while stream.read(&mut seen).is_ok_and(|count| count > 0) {}
    })
}

/// The next report, waited for as the server's loop does.
fn next(links: &Links) -> Input<'static> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        links.begin();
        if let Some(input) = links.next() {
            return input;
        }
        assert!(Instant::now() < deadline, "no report");
        let time = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::new(links.ready(), PollFlags::IN)], Some(&time)).unwrap();
    }
}

fn failure(links: &Links) -> LinkFailure {
    match next(links) {
        Input::LinkClosed { link: LINK, failure } => failure,
        other => panic!("{other:?}"),
    }
}

fn opened(links: &Links, target: Target) {
    links.open(LINK, target);
    match next(links) {
        Input::LinkOpened(LINK) => {}
        other => panic!("{other:?}"),
    }
}

/// Why a link to a peer with these words fails after one command.
fn failure_after(bytes: &'static [u8]) -> LinkFailure {
    let links = Links::new().unwrap();
    opened(&links, plain(address(saying(bytes))));
    links.send(LINK, Argv::new(&[b"RG.HELLO"]));
    failure(&links)
}

#[test]
fn replies_come_in_the_order_of_commands_which_do_not_wait_for_them() {
    const COUNT: usize = 2000;
    let port = peer(|mut stream| {
        let (mut seen, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        // Nothing is said before all commands are there.
        while seen.windows(3).filter(|bytes| bytes == b"*2\r").count() < COUNT {
            let count = stream.read(&mut chunk).unwrap();
            seen.extend_from_slice(&chunk[..count]);
        }
        let numbers = String::from_utf8(seen).unwrap();
        for line in numbers.split("\r\n").filter(|line| line.parse::<usize>().is_ok()) {
            stream.write_all(format!("+{line}\r\n").as_bytes()).unwrap();
        }
    });
    let links = Links::new().unwrap();
    opened(&links, plain(address(port)));
    for number in 0..COUNT {
        links.send(LINK, Argv::new(&[b"RG.X", number.to_string().as_bytes()]));
    }
    for number in 0..COUNT {
        let expected = LinkReply::Status(number.to_string().into_bytes());
        match next(&links) {
            Input::LinkReply { link: LINK, reply } => assert_eq!(reply, expected),
            other => panic!("{other:?} at {number}"),
        }
    }
    assert!(matches!(failure(&links), LinkFailure::Lost(_)));
}

#[test]
fn large_commands_arrive_while_replies_are_read() {
    const COUNT: usize = 20;
    let payload = vec![7; 1 << 20];
    let port = peer(move |mut stream| {
        let mut writer = stream.try_clone().unwrap();
        let mut chunk = vec![0; 1 << 16];
        let (mut bytes, mut answered) = (0, 0);
        while answered < COUNT {
            bytes += stream.read(&mut chunk).unwrap();
            while bytes >= (answered + 1) * (1 << 20) {
                writer.write_all(b"$2\r\nOK\r\n").unwrap();
                answered += 1;
            }
        }
        // A connection that is closed with unread bytes loses replies.
        while stream.read(&mut chunk).is_ok_and(|read| read > 0) {}
    });
    let links = Links::new().unwrap();
    opened(&links, plain(address(port)));
    for _ in 0..COUNT {
        links.send(LINK, Argv::new(&[b"RG.X", &payload]));
    }
    for _ in 0..COUNT {
        assert!(matches!(next(&links), Input::LinkReply { reply: LinkReply::Bulk(_), .. }));
    }
}

#[test]
fn a_peer_that_refuses_connections_is_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let links = Links::new().unwrap();
    links.open(LINK, plain(address(port)));
    assert!(matches!(failure(&links), LinkFailure::Unreachable(text) if text.contains("refused")));
    links.open(LINK, plain(Address { host: String::new(), ..address(1) }));
    assert!(matches!(failure(&links), LinkFailure::Unreachable(text) if text.contains("not known")));
    links.open(LINK, plain(Address { host: "name.invalid".to_owned(), ..address(1) }));
    assert!(matches!(failure(&links), LinkFailure::Unreachable(text) if text.contains("name.invalid")));
    links.open(LINK, plain(Address { unix_socket: Some("/no/such/socket".to_owned()), ..address(1) }));
    assert!(matches!(failure(&links), LinkFailure::Unreachable(text) if text.contains("/no/such/socket")));
}

#[test]
fn a_peer_that_does_not_answer_auth_is_given_up() {
    let port = peer(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {});
    let links = Links::new().unwrap();
    let began = Instant::now();
    links.open(LINK, with_password(port));
    assert_eq!(failure(&links), LinkFailure::Unreachable("no answer to AUTH within 5000 ms".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_a_peer_says_to_auth_decides() {
    let links = Links::new().unwrap();
    for refusal in [&b"-WRONGPASS invalid username-password pair\r\n"[..], b"-NOPERM no\r\n"] {
        links.open(LINK, with_password(saying(refusal)));
        let text = String::from_utf8_lossy(&refusal[1..refusal.len() - 2]).into_owned();
        assert_eq!(failure(&links), LinkFailure::Authentication(text));
    }
    for accepted in [&b"+OK\r\n"[..], b"-ERR AUTH <password> called without any password configured\r\n"] {
        opened(&links, with_password(saying(accepted)));
        links.close(LINK);
    }
    links.open(LINK, with_password(peer(drop)));
    assert!(matches!(failure(&links), LinkFailure::Lost(_)));
}

#[test]
fn auth_is_sent_with_user_and_password_before_anything_else() {
    let port = peer(|mut stream| {
        let mut seen = [0; 256];
        let count = stream.read(&mut seen).unwrap();
        let correct = &seen[..count] == b"*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n";
        stream.write_all(if correct { b"+OK\r\n" } else { b"-WRONGPASS\r\n" }).unwrap();
        let _ = stream.read(&mut seen);
    });
    let links = Links::new().unwrap();
    opened(&links, with_password(port));
}

#[test]
fn failures_have_classes() {
    assert!(matches!(failure_after(b"-NOAUTH Authentication required.\r\n"), LinkFailure::Authentication(_)));
    assert!(matches!(failure_after(b"HTTP/1.1 400 Bad Request\r\n\r\n"), LinkFailure::Protocol(_)));
    assert!(matches!(failure_after(&[0x15, 3, 3, 0, 2, 2, 70]), LinkFailure::Tls(_)));
    assert!(matches!(failure_after(&[b'$'; 100]), LinkFailure::Protocol(_)));
    assert!(matches!(failure_after(b"$999999999\r\n"), LinkFailure::Protocol(_)));
}

#[test]
fn a_reply_to_no_command_ends_the_link() {
    let links = Links::new().unwrap();
    let full = peer(|mut stream| stream.write_all(b"-ERR max number of clients reached\r\n").unwrap());
    opened(&links, plain(address(full)));
    match failure(&links) {
        LinkFailure::Protocol(text) => assert!(text.contains("max number of clients"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_reported_of_a_link_that_was_closed_and_the_peer_sees_its_end() {
    let (sender, ended) = std::sync::mpsc::channel();
    let port = peer(move |mut stream| {
        let mut seen = [0; 64];
        let _ = stream.read(&mut seen).unwrap();
        sender.send("command").unwrap();
        let is_end = matches!(stream.read(&mut seen), Ok(0));
        sender.send(if is_end { "end" } else { "error" }).unwrap();
        let _ = stream.write_all(b"+OK\r\n");
        let _ = stream.shutdown(Shutdown::Both);
    });
    let links = Links::new().unwrap();
    opened(&links, plain(address(port)));
    links.send(LINK, Argv::new(&[b"RG.HELLO"]));
    assert_eq!(ended.recv_timeout(DEADLINE), Ok("command"));
    links.close(LINK);
    assert_eq!(ended.recv_timeout(DEADLINE), Ok("end"));
    links.send(LINK, Argv::new(&[b"RG.HELLO"]));
    links.begin();
    assert!(links.next().is_none());
}

#[test]
fn a_socket_in_the_file_system_is_used_if_there_is_one() {
    let folder = std::env::temp_dir().join(format!("rg-links-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 64]).unwrap();
        stream.write_all(b"+OK\r\n").unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    let links = Links::new().unwrap();
    opened(&links, plain(Address { unix_socket: Some(path.to_str().unwrap().to_owned()), ..address(1) }));
    links.send(LINK, Argv::new(&[b"RG.HELLO"]));
    assert!(matches!(next(&links), Input::LinkReply { reply: LinkReply::Status(_), .. }));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn two_hundred_links_work_at_the_same_time() {
    const COUNT: u64 = 200;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..COUNT).map(|_| listener.accept().unwrap().0).collect();
        for stream in &mut streams {
            let _ = stream.read(&mut [0; 64]).unwrap();
            stream.write_all(b"+OK\r\n").unwrap();
        }
        let _ = streams[0].read(&mut [0; 64]);
    });
    let links = Links::new().unwrap();
    for number in 0..COUNT {
        links.open(LinkNo(number), plain(address(port)));
    }
    let (mut opened, mut answered) = (0, 0);
    while answered < COUNT {
        match next(&links) {
            Input::LinkOpened(link) => {
                opened += 1;
                links.send(link, Argv::new(&[b"RG.HELLO"]));
            }
            Input::LinkReply { .. } => answered += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened, COUNT);
}
