//! Notices changes of the topology: failovers, slots that move, nodes that come and go.
//!
//! The server announces none of this to modules, and epochs do not grow with every move of a slot. So the reply of
//! `CLUSTER SLOTS` is compared several times per second. It is the cheapest command with all that is needed (with 200 shards and
//! 200 replicas: 64 us on Redis 7.0, 51 us on 8.2, 6 us on Valkey 9, where the reply is cached). `CLUSTER NODES` and `CLUSTER
//! SHARDS` take five to ten times as long on Redis, contain values that change all the time, and the latter misses slots of a
//! master that has failed.

use std::time::{Duration, Instant};

use redgrease_core::id::ShardId;
use redgrease_engine::Input;
use redgrease_engine::cluster::topology::Topology;
use redgrease_ffi::call::ReplyKind;
use redgrease_ffi::{CallOptions, CallReply, LogLevel};

use super::slots;
use crate::driver::Driver;

/// Time between two looks.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// They are rarer where a look takes long (16,384 ranges: 4 ms), so that all of them take at most a hundredth of the main thread's
/// time, but not rarer than this.
const CHECK_EVERY_MAX: Duration = Duration::from_secs(2);
const PAUSE_FACTOR: u32 = 100;

/// Looks at the topology if it is time to, and hands it in if it has changed. Called before the loop sleeps, when no command is
/// running.
pub fn check(driver: &Driver) {
    let discovery = &driver.discovery;
    let began = Instant::now();
    if discovery.next.get().is_some_and(|next| began < next) || !driver.server.flags().cluster() {
        return;
    }
    let changed = look(driver);
    let pause = (began.elapsed() * PAUSE_FACTOR).clamp(CHECK_EVERY, CHECK_EVERY_MAX);
    discovery.next.set(Some(Instant::now() + pause));
    if let Some(topology) = changed {
        driver.hand_in(Input::Topology(topology));
    }
}

/// The topology, if it is another one than the engine has been told.
fn look(driver: &Driver) -> Option<Topology> {
    let (id, slots) = replies(driver)?;
    let known = &mut *driver.discovery.known.borrow_mut();
    if known.replies.0 != id.wire() || known.replies.1 != slots.wire() {
        known.replies = (id.wire().to_vec(), slots.wire().to_vec());
        known.looked = Some(slots::topology(own_id(&id), slots.view()));
    }
    if known.told == known.looked {
        return None;
    }
    known.told.clone_from(&known.looked);
    known.told.clone()
}

/// Reads the topology now, while a command may be running.
pub fn read(driver: &Driver) -> Topology {
    if !driver.server.flags().cluster() {
        return Topology::standalone();
    }
    driver.discovery.look_soon();
    let replies = replies(driver);
    let mut known = driver.discovery.known.borrow_mut();
    let Some((id, slots)) = replies else {
        return known.told.clone().unwrap_or_else(Topology::standalone);
    };
    let mut topology = slots::topology(own_id(&id), slots.view());
    if let Some(looked) = &known.looked {
        keep_ports(&mut topology, looked);
    }
    known.told = Some(topology.clone());
    topology
}

/// The node's own id, and its slots.
fn replies(driver: &Driver) -> Option<(CallReply, CallReply)> {
    let call = |word: &[u8]| {
        let reply = driver.server.call(&[b"cluster", word], CallOptions::default());
        let reply = reply.map_err(|_| "the server does not run it".to_owned())?;
        match reply.view().kind() {
            ReplyKind::Error => Err(String::from_utf8_lossy(reply.view().bytes()).into_owned()),
            _ => Ok(reply),
        }
    };
    let both = call(b"myid").and_then(|id| Ok((id, call(b"slots")?)));
    let failure = both.as_ref().err().cloned();
    if driver.discovery.failure.replace(failure.clone()) != failure
        && let Some(failure) = failure
    {
        let text = format!("rg: the shards of the cluster are not known: CLUSTER SLOTS: {failure}");
        driver.server.log(LogLevel::Warning, &text);
    }
    both.ok()
}

fn own_id(reply: &CallReply) -> ShardId {
    ShardId::padded(reply.view().bytes()).unwrap_or_else(ShardId::standalone)
}

/// Gives shards that were seen before, at the same host, the ports that they had.
fn keep_ports(topology: &mut Topology, looked: &Topology) {
    for shard in &mut topology.shards {
        if let Some(known) = looked.shards.iter().find(|known| known.id == shard.id)
            && known.address.host == shard.address.host
        {
            shard.address.port = known.address.port;
        }
    }
}

#[cfg(test)]
mod tests {
    use redgrease_engine::cluster::topology::{Address, Shard};

    use super::*;

    fn topology(host: &str, ports: &[u16]) -> Topology {
        let shards = ports.iter().enumerate().map(|(index, port)| Shard {
            id: ShardId::padded(index.to_string().as_bytes()).unwrap(),
            address: Address { host: host.to_owned(), port: *port, unix_socket: None, password: None },
            slots: Vec::new(),
        });
        Topology { me: ShardId::standalone(), shards: shards.collect() }
    }

    #[test]
    fn ports_of_known_shards_are_kept_unless_they_have_moved() {
        let mut read = topology("h", &[1, 2, 3]);
        keep_ports(&mut read, &topology("h", &[11, 12]));
        assert_eq!(read, topology("h", &[11, 12, 3]));
        let mut read = topology("h", &[1, 2]);
        keep_ports(&mut read, &topology("other", &[11, 12]));
        assert_eq!(read, topology("h", &[1, 2]));
    }
}
