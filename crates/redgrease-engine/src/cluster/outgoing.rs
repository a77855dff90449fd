//! The link to one shard: its connection, what was said on it, and when something is due.

use core::mem::{Discriminant, discriminant};

use crate::cluster::outbox::{Outbox, Receipt};
use crate::cluster::topology::Address;
use crate::error::Error;
use crate::id::LinkNo;
use crate::limits::{LINK_AGAIN_MS, LINK_AGAIN_MS_MAX, LINK_STALL_MS, LINK_STEADY_MS, LINK_TICK_MS};
use crate::prelude::*;

/// What the shard understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Messages of RedisGears only.
    Plain,
    /// Messages of redgrease.
    Own {
        /// Bytes of payloads that it accepts before it acknowledges them.
        window_bytes: u64,
        /// The longest payload.
        part_bytes: u64,
    },
}

/// How far the greeting of a connected shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// `RG.HELLO` was sent.
    Greeting,
    /// It was not answered with the id of a run, and is sent again at this time.
    GreetAgain {
        /// The time.
        at_ms: u64,
    },
    /// Our hello was sent.
    Terms,
    /// Messages are sent.
    Ready(Protocol),
}

/// A command that was sent and is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The pushed topology.
    Topology,
    /// `RG.HELLO`.
    Greeting,
    /// Our hello, in this epoch.
    Terms(u64),
    /// A message, or a part of one.
    Unit(Receipt),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Open {
    /// Its number.
    pub(super) link: LinkNo,
    /// How far its greeting is.
    pub(super) stage: Stage,
    /// The commands that are not answered, in order.
    pub(super) awaiting: VecDeque<Sent>,
    /// The run that answered.
    pub(super) run: Rc<[u8]>,
    /// Hellos in a row that did not lead to an agreement.
    pub(super) rounds: u32,
    /// The shard refused a message because it is in another epoch.
    pub(super) refused: bool,
    /// The topology was pushed on it.
    pub(super) relayed: bool,
    /// When a sign of life was sent last.
    pub(super) beat_ms: u64,
}

impl Open {
    /// Whether a hello is not answered yet.
    pub(super) fn has_hello_on_its_way(&self) -> bool {
        self.awaiting.iter().any(|sent| matches!(sent, Sent::Terms(_)))
    }
}

/// The state of a connection.
#[derive(Debug)]
pub(super) enum State {
    /// There is none until this time.
    Closed {
        /// The time.
        until_ms: u64,
    },
    /// It is being made.
    Opening {
        /// Its number.
        link: LinkNo,
        /// Since when.
        since_ms: u64,
    },
    /// There is one.
    Open(Open),
}

/// The link to one shard.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Where the shard is.
    pub(super) address: Address,
    /// The connection.
    pub(super) state: State,
    /// Messages.
    pub(super) outbox: Outbox,
    /// The shard is given up until a link to it is ready: messages are not kept.
    pub(super) failing: bool,
    /// What went wrong last.
    pub(super) problem: Option<Error>,
    /// The kind of problem that was logged last.
    reported: Option<Discriminant<Error>>,
    /// The shard knows no topology: ours is pushed on the next connection.
    pub(super) relay: bool,
    /// When it was opened last.
    pub(super) opened_ms: u64,
    /// When the last answer came, or the first command was sent that waits for one.
    pub(super) heard_ms: u64,
    /// Since when the link is not ready; `None`: it is.
    pub(super) down_ms: Option<u64>,
    /// When it became ready.
    ready_ms: u64,
    /// Connections that failed in a row.
    failures: u32,
    /// It is among those that have more to send.
    pub(super) has_turn: bool,
}

impl Outgoing {
    /// A link that is to be opened at once.
    pub(super) fn new(address: Address, now_ms: u64) -> Outgoing {
        Outgoing {
            address,
            state: State::Closed { until_ms: now_ms },
            outbox: Outbox::default(),
            failing: false,
            problem: None,
            reported: None,
            relay: false,
            opened_ms: 0,
            heard_ms: now_ms,
            down_ms: Some(now_ms),
            ready_ms: 0,
            failures: 0,
            has_turn: false,
        }
    }

    /// The number of the connection.
    pub(super) fn link(&self) -> Option<LinkNo> {
        match &self.state {
            State::Closed { .. } => None,
            State::Opening { link, .. } | State::Open(Open { link, .. }) => Some(*link),
        }
    }

    /// The connection.
    pub(super) fn open(&self) -> Option<&Open> {
        if let State::Open(open) = &self.state { Some(open) } else { None }
    }

    /// The connection.
    pub(super) fn open_mut(&mut self) -> Option<&mut Open> {
        if let State::Open(open) = &mut self.state { Some(open) } else { None }
    }

    /// What the shard understands, if messages are sent.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        match self.open()?.stage {
            Stage::Ready(protocol) => Some(protocol),
            _ => None,
        }
    }

    /// A command is sent: the time for its answer begins, unless that of others has.
    pub(super) fn await_answer(&mut self, sent: Sent, now_ms: u64) {
        let Some(open) = self.open_mut() else { return };
        let is_first = open.awaiting.is_empty();
        open.awaiting.push_back(sent);
        if is_first {
            self.heard_ms = now_ms;
        }
    }

    /// Messages are sent from now on. Whether this is worth a line in the log.
    pub(super) fn become_ready(&mut self, protocol: Protocol, now_ms: u64) -> bool {
        let Some(open) = self.open_mut() else { return false };
        (open.stage, open.rounds, open.beat_ms) = (Stage::Ready(protocol), 0, now_ms);
        let is_new = self.down_ms.is_some() && (self.ready_ms == 0 || self.reported.is_some());
        if self.down_ms.take().is_some() {
            self.ready_ms = now_ms;
        }
        (self.failing, self.problem, self.failures) = (false, None, 0);
        is_new
    }

    /// The connection is gone. Whether the problem is worth a line in the log.
    pub(super) fn become_closed(&mut self, problem: Error, pause_ms: u64, now_ms: u64) -> bool {
        if self.down_ms.is_none() && now_ms - self.ready_ms >= LINK_STEADY_MS {
            self.reported = None;
        }
        self.go_down(now_ms);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Closed { until_ms: now_ms + pause_ms };
        self.report(problem)
    }

    /// The link is not ready any more.
    fn go_down(&mut self, now_ms: u64) {
        let waits = self.open().is_some_and(|open| !open.awaiting.is_empty());
        self.down_ms.get_or_insert(if waits { self.heard_ms } else { now_ms });
    }

    /// The shard is somewhere else: its link is to be opened there at once, as if nothing had failed.
    pub(super) fn move_to(&mut self, address: Address, now_ms: u64) {
        if self.failing {
            (self.failing, self.down_ms) = (false, Some(now_ms));
        }
        self.go_down(now_ms);
        self.state = State::Closed { until_ms: now_ms };
        (self.address, self.problem, self.reported, self.failures) = (address, None, None, 0);
    }

    /// Something went wrong. Whether it is worth a line in the log.
    pub(super) fn report(&mut self, problem: Error) -> bool {
        let kind = Some(discriminant(&problem));
        self.problem = Some(problem);
        core::mem::replace(&mut self.reported, kind) != kind
    }

    /// The shard is alive: a link that waits is opened soon.
    pub(super) fn hurry(&mut self, now_ms: u64) {
        if let State::Closed { until_ms } = &mut self.state {
            *until_ms = (*until_ms).min(now_ms.max(self.opened_ms + LINK_STALL_MS));
        }
    }

    /// The pause before the next connection: short while the shard is not given up, so that a link that was cut for a moment
    /// loses nothing. `random` shortens it by up to a quarter.
    pub(super) fn pause_ms(&self, idle_ms: u64, random: u32) -> u64 {
        let pause = if self.failing {
            (LINK_AGAIN_MS << self.failures.min(10)).min(LINK_AGAIN_MS_MAX)
        } else {
            LINK_AGAIN_MS.min(idle_ms / 5).max(LINK_TICK_MS / 2)
        };
        pause - pause * u64::from(random % 256) / 1024
    }

    /// This server stood still for some time, which does not count.
    pub(super) fn forgive(&mut self, ms: u64, now_ms: u64) {
        let later = |time: &mut u64| *time = (*time + ms).min(now_ms);
        later(&mut self.heard_ms);
        if let Some(down) = &mut self.down_ms {
            later(down);
        }
        if let State::Opening { since_ms, .. } = &mut self.state {
            later(since_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing() -> Outgoing {
        Outgoing::new(Address { host: "h".into(), port: 1, unix_socket: None, password: None }, 1000)
    }

    fn open(outgoing: &mut Outgoing) {
        outgoing.state = State::Open(Open {
            link: LinkNo(1),
            stage: Stage::Greeting,
            awaiting: VecDeque::new(),
            run: b"r".as_slice().into(),
            rounds: 0,
            refused: false,
            relayed: false,
            beat_ms: 0,
        });
    }

    fn down() -> Error {
        Error::PeerDown { peer: "p".into(), reason: "r".into() }
    }

    #[test]
    fn pauses_are_short_at_first_and_grow_when_the_shard_is_given_up() {
        let mut outgoing = outgoing();
        let mut pauses = Vec::new();
        for _ in 0..3 {
            pauses.push(outgoing.pause_ms(5000, 0));
            outgoing.become_closed(down(), 0, 2000);
        }
        outgoing.failing = true;
        for _ in 0..3 {
            pauses.push(outgoing.pause_ms(5000, 0));
            outgoing.become_closed(down(), 0, 2000);
        }
        assert_eq!(pauses, [1000, 1000, 1000, 8000, 10_000, 10_000]);
        assert_eq!((outgoing.pause_ms(5000, 255), outgoing.pause_ms(5000, 256)), (7510, 10_000));
        open(&mut outgoing);
        outgoing.become_ready(Protocol::Plain, 3000);
        assert_eq!([5000, 500, 1].map(|idle_ms| outgoing.pause_ms(idle_ms, 0)), [1000, 100, 50]);
    }

    #[test]
    fn a_link_is_down_since_the_last_answer_that_was_owed() {
        let mut outgoing = outgoing();
        open(&mut outgoing);
        outgoing.become_ready(Protocol::Plain, 2000);
        outgoing.await_answer(Sent::Greeting, 3000);
        outgoing.await_answer(Sent::Greeting, 4000);
        outgoing.become_closed(down(), 0, 5000);
        assert_eq!(outgoing.down_ms, Some(3000));
        open(&mut outgoing);
        outgoing.become_ready(Protocol::Plain, 6000);
        outgoing.become_closed(down(), 0, 7000);
        assert_eq!(outgoing.down_ms, Some(7000), "nothing was owed");
    }

    #[test]
    fn each_kind_of_problem_is_logged_once_until_the_link_was_ready_for_some_time() {
        let mut outgoing = outgoing();
        let silent = || Error::PeerSilent { peer: "p".into(), ms: 1 };
        let mut logged = vec![
            outgoing.become_closed(down(), 0, 1000),
            outgoing.become_closed(down(), 0, 2000),
            outgoing.become_closed(silent(), 0, 3000),
        ];
        for (ready_ms, closed_ms) in [(4000, 5000), (6000, 60_000)] {
            open(&mut outgoing);
            logged.push(outgoing.become_ready(Protocol::Plain, ready_ms));
            logged.push(outgoing.become_closed(silent(), 0, closed_ms));
        }
        assert_eq!(logged, [true, false, true, true, false, true, true]);
    }

    #[test]
    fn a_shard_that_is_alive_is_not_waited_for() {
        let mut outgoing = outgoing();
        outgoing.opened_ms = 1000;
        let mut pauses = Vec::new();
        for (until_ms, now_ms) in [(9000, 5000), (9000, 1100), (1200, 1100)] {
            outgoing.state = State::Closed { until_ms };
            outgoing.hurry(now_ms);
            let State::Closed { until_ms } = outgoing.state else { unreachable!("it was closed") };
            pauses.push(until_ms);
        }
        assert_eq!(pauses, [5000, 1500, 1200]);
    }

    #[test]
    fn time_in_which_this_server_stood_still_does_not_count() {
        let mut outgoing = outgoing();
        outgoing.forgive(500, 9000);
        assert_eq!((outgoing.heard_ms, outgoing.down_ms), (1500, Some(1500)));
        outgoing.forgive(20_000, 9000);
        assert_eq!((outgoing.heard_ms, outgoing.down_ms), (9000, Some(9000)));
    }
}
