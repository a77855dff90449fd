//! A cluster on this machine: ports of the nodes, and making one cluster of servers that run.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use redis::{Connection, ProtocolVersion};

use crate::args::Serve;
use crate::connection::ConnectionOptions;
use crate::failure;
use crate::launch::{Node, Plan, free_port};
use crate::misuse::misuse;
use crate::records::Records;

const FIRST_PORT: u16 = 30001;
/// Distance from the port for clients to the port for other nodes, as the servers have it by default.
const BUS_DISTANCE: u16 = 10000;
const SLOTS: u32 = 16384;
const POLL: Duration = Duration::from_millis(50);
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// The plans of all nodes, masters first; all ports are free.
pub fn plans(mut args: Serve, masters: u16, records: &Records) -> Result<Vec<Plan>> {
    refuse_tls(&args.server_args)?;
    args.server_args = with_password_for_others(args.server_args);
    let count = masters * (1 + args.replicas);
    let first = args.port.unwrap_or(FIRST_PORT);
    let ports = if first == 0 { any_ports(count, records)? } else { consecutive_ports(first, count, records)? };
    let cluster = ports[0].0;
    let nodes: Vec<_> = ports.into_iter().map(|(port, bus)| (port, Node { cluster, bus })).collect();
    Plan::nodes(args, &nodes)
}

/// Nodes authenticate to each other, as replicas and for links between shards, with the password that clients need.
fn with_password_for_others(mut server_args: Vec<OsString>) -> Vec<OsString> {
    let at = |option: &str| server_args.iter().position(|argument| argument.eq_ignore_ascii_case(option));
    if let (Some(index), None) = (at("--requirepass"), at("--masterauth").or_else(|| at("--primaryauth")))
        && let Some(password) = server_args.get(index + 1).cloned()
    {
        server_args.extend(["--masterauth".into(), password]);
    }
    server_args
}

/// Each node would need a port of its own for TLS.
fn refuse_tls(server_args: &[OsString]) -> Result<()> {
    let options = ["--tls-port", "--tls-cluster"];
    match options.iter().find(|option| server_args.iter().any(|argument| argument.eq_ignore_ascii_case(option))) {
        Some(option) => {
            Err(misuse(format!("{option} after -- does not work with --cluster: its nodes have no ports for TLS")))
        }
        None => Ok(()),
    }
}

fn consecutive_ports(first: u16, count: u16, records: &Records) -> Result<Vec<(u16, u16)>> {
    if first.checked_add(count - 1).and_then(|last| last.checked_add(BUS_DISTANCE)).is_none() {
        return Err(misuse(format!(
            "--port {first} is too high for {count} nodes, which also use the ports {BUS_DISTANCE} above: at most {}",
            u16::MAX - BUS_DISTANCE - (count - 1)
        )));
    }
    (first..first + count)
        .map(|port| Ok((free_port(port, records)?, free_port(port + BUS_DISTANCE, records)?)))
        .collect()
}

fn any_ports(count: u16, records: &Records) -> Result<Vec<(u16, u16)>> {
    let mut found: Vec<u16> = Vec::new();
    while found.len() < 2 * usize::from(count) {
        let port = free_port(0, records)?;
        if !found.contains(&port) {
            found.push(port);
        }
    }
    Ok(found.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

/// A node that runs.
struct Member {
    port: u16,
    bus: u16,
    connection: Connection,
}

/// Makes one cluster of servers that run, unless their folders hold one already, and returns when every node serves it.
/// The first `masters` of them are masters. `stop` is polled while waiting; true aborts.
pub fn form(nodes: &[(u16, u16)], masters: usize, timeout: Duration, mut stop: impl FnMut() -> bool) -> Result<()> {
    let mut wait = Wait { deadline: Instant::now() + timeout, timeout, stop: &mut stop };
    let mut members = nodes.iter().map(|&(port, bus)| Member::connect(port, bus)).collect::<Result<Vec<_>>>()?;
    if members[0].info("CLUSTER INFO", "cluster_slots_assigned")? == "0" {
        assign_slots(&mut members[..masters])?;
        introduce(&mut members)?;
        wait.until(&mut members, "every node to know the others", |member| {
            Ok((member.info("CLUSTER INFO", "cluster_known_nodes")? == nodes.len().to_string())
                .then_some(())
                .ok_or("it does not know all nodes yet".to_owned()))
        })?;
        replicate(&mut members, masters, &mut wait)?;
    }
    wait.until(&mut members, "the cluster to serve every slot", |member| member.readiness(nodes.len()))
}

/// Each master gets the same share of the slots.
fn assign_slots(masters: &mut [Member]) -> Result<()> {
    let count = masters.len();
    for (index, master) in masters.iter_mut().enumerate() {
        let slots = share(index as u32, count as u32);
        master.run(redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(*slots.start()).arg(*slots.end()))?;
        master.run(redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(index + 1))?;
    }
    Ok(())
}

fn share(index: u32, count: u32) -> RangeInclusive<u32> {
    SLOTS * index / count..=SLOTS * (index + 1) / count - 1
}

/// Every node meets every other one: that is faster than waiting for their gossip.
fn introduce(members: &mut [Member]) -> Result<()> {
    let addresses: Vec<_> = members.iter().map(|member| (member.port, member.bus)).collect();
    for (index, member) in members.iter_mut().enumerate() {
        for &(port, bus) in &addresses[index + 1..] {
            member.run(redis::cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(port).arg(bus))?;
        }
    }
    Ok(())
}

/// The nodes after the masters become replicas, of one master after the other.
fn replicate(members: &mut [Member], masters: usize, wait: &mut Wait<'_>) -> Result<()> {
    let (masters, replicas) = members.split_at_mut(masters);
    for (index, replica) in replicas.iter_mut().enumerate() {
        let master: &mut Member = &mut masters[index % masters.len()];
        let id: String = redis::cmd("CLUSTER").arg("MYID").query(&mut master.connection)?;
        // A node knows the id of another one only after their handshake.
        wait.until(std::slice::from_mut(replica), "a replica to accept its master", |replica| {
            Ok(redis::cmd("CLUSTER")
                .arg("REPLICATE")
                .arg(&id)
                .query::<redis::Value>(&mut replica.connection)
                .map(drop)
                .map_err(|error| error.to_string()))
        })?;
    }
    Ok(())
}

impl Member {
    fn connect(port: u16, bus: u16) -> Result<Self> {
        let password = std::env::var("REDISCLI_AUTH").ok();
        let options = ConnectionOptions { port: Some(port), password, ..ConnectionOptions::default() };
        let connection = options.target()?.connect(ProtocolVersion::RESP2, Some(REPLY_TIMEOUT))?;
        Ok(Self { port, bus, connection })
    }

    fn run(&mut self, command: &redis::Cmd) -> Result<()> {
        let done = command.query::<redis::Value>(&mut self.connection);
        done.map(drop).map_err(|error| failure::of_command(error, &format!("node {}", self.port)).into())
    }

    /// A field of a reply with lines `field:value`.
    fn info(&mut self, command: &str, field: &str) -> Result<String> {
        let mut asked = redis::Cmd::new();
        asked.arg(command.split(' ').collect::<Vec<_>>());
        let text: String = asked
            .query(&mut self.connection)
            .map_err(|error| failure::of_command(error, &format!("node {}", self.port)))?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("node {} has no {field} in {command}", self.port))?.trim().to_owned())
    }

    /// Ok, or what it still waits for.
    fn readiness(&mut self, nodes: usize) -> Result<std::result::Result<(), String>> {
        let expected =
            [("cluster_state", "ok"), ("cluster_slots_ok", "16384"), ("cluster_known_nodes", &nodes.to_string())];
        for (field, wanted) in expected {
            let value = self.info("CLUSTER INFO", field)?;
            if value != wanted {
                return Ok(Err(format!("{field} is {value}, not {wanted}")));
            }
        }
        if self.info("INFO replication", "role")? != "master"
            && self.info("INFO replication", "master_link_status")? != "up"
        {
            return Ok(Err("it is not connected with its master".to_owned()));
        }
        Ok(Ok(()))
    }
}

/// Waiting with a deadline.
struct Wait<'a> {
    deadline: Instant,
    timeout: Duration,
    stop: &'a mut dyn FnMut() -> bool,
}

impl Wait<'_> {
    /// Returns when `look` returns Ok for every node. Its errors end the waiting.
    fn until(
        &mut self,
        members: &mut [Member],
        what: &str,
        mut look: impl FnMut(&mut Member) -> Result<std::result::Result<(), String>>,
    ) -> Result<()> {
        for member in members {
            while let Err(missing) = look(member)? {
                if (self.stop)() {
                    bail!("stopped before the cluster was ready");
                }
                if Instant::now() > self.deadline {
                    let limit = self.timeout.as_secs_f64();
                    bail!("waited {limit} s (--timeout) for {what}; node {}: {missing}", member.port);
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_masters_are_all_slots() {
        for count in 1..=32 {
            let mut next = 0;
            for index in 0..count {
                let slots = share(index, count);
                assert_eq!(*slots.start(), next, "{index} of {count}");
                next = slots.end() + 1;
            }
            assert_eq!(next, SLOTS, "{count}");
        }
    }

    #[test]
    fn nodes_authenticate_to_each_other_with_the_password_of_clients() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let with = |text: &str| with_password_for_others(words(text));
        assert_eq!(with("--RequirePass pw"), words("--RequirePass pw --masterauth pw"));
        for unchanged in ["--requirepass pw --masterauth other", "--primaryauth other --requirepass pw", "--save x"] {
            assert_eq!(with(unchanged), words(unchanged));
        }
        assert_eq!(with("--requirepass"), words("--requirepass"), "the server explains what is wrong");
    }

    #[test]
    fn options_of_tls_are_refused() {
        let error = refuse_tls(&["--TLS-Cluster".into(), "yes".into()]).unwrap_err().to_string();
        assert!(error.contains("--tls-cluster"), "{error}");
        refuse_tls(&["--maxmemory".into()]).unwrap();
    }

    #[test]
    fn ports_above_the_last_one_are_refused() {
        let (_folder, records) = Records::empty();
        let error = consecutive_ports(55534, 3, &records).unwrap_err().to_string();
        assert!(error.ends_with("at most 55533"), "{error}");
    }
}
