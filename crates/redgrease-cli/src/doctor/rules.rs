//! The rules of `doctor`: facts in, findings out.

use super::facts::{Facts, Node};
use crate::failure::Class;
use crate::output::counted;
use crate::units::show_bytes;

/// The oldest servers that load the module.
const OLDEST_REDIS: (u64, u64) = (7, 0);
const OLDEST_VALKEY: (u64, u64) = (7, 2);
/// Failing registrations that are named.
const FAILING_SHOWN: usize = 3;
/// Share of a limit from which on it is reported.
const NEARLY: f64 = 0.8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Ok,
    Warning,
    Error,
}

/// Something that was examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub name: &'static str,
    pub message: String,
    pub fix: Option<String>,
    /// The class of an error, which is the exit code.
    pub class: Class,
}

fn ok(name: &'static str, message: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, name, message: message.into(), fix: None, class: Class::Failed }
}

fn warning(name: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, fix: Some(fix.into()), ..ok(name, message) }
}

fn error(name: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { level: Level::Error, ..warning(name, message, fix) }
}

/// All findings, in the order in which they are printed. `own_version` is that of this program.
pub fn examine(facts: &Facts, own_version: &str) -> Vec<Finding> {
    let mut found = vec![server(facts), module(facts, own_version)];
    if facts.module.is_some() {
        found.extend(role(facts));
        found.extend(interpreter(facts));
        found.push(workers(facts));
        found.extend(isolation(facts));
        found.extend(load(facts));
        found.extend(registrations(facts));
        found.extend(persistence(facts));
    }
    found.extend(memory(facts));
    found.extend(access(facts));
    found.extend(cluster(facts));
    found
}

fn server(facts: &Facts) -> Finding {
    let info = &facts.info;
    let name = info.server();
    let (version, oldest) = match info.get("valkey_version") {
        Some(version) => (version, OLDEST_VALKEY),
        None => (info.get("redis_version").unwrap_or_default(), OLDEST_REDIS),
    };
    if numbers(version) < oldest {
        return error("server", format!("{name} is too old"), "use Redis 7.0 or newer, or Valkey 7.2 or newer");
    }
    ok("server", format!("{name} at {}, up {} s", facts.place, info.number("uptime_in_seconds")))
}

fn numbers(version: &str) -> (u64, u64) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn module(facts: &Facts, own_version: &str) -> Finding {
    let Some(version) = facts.module else {
        let fix = "start a server that has it with `redgrease serve`, or load it into this one: MODULE LOAD \
                   /path/to/libredgrease.so, or loadmodule in its configuration file";
        return Finding { class: Class::NoModule, ..error("module", "the module redgrease is not loaded", fix) };
    };
    let version = dotted(version);
    if own_version.split('-').next() != Some(&version) {
        let message = format!("version {version}; this program is {own_version}");
        return warning("module", message, "install the same version of both");
    }
    ok("module", format!("version {version}"))
}

/// 10203 is 1.2.3.
fn dotted(version: u64) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

fn role(facts: &Facts) -> Option<Finding> {
    let info = &facts.info;
    (info.get("role") != Some("master")).then(|| {
        let master = format!("{}:{}", info.get("master_host").unwrap_or("?"), info.get("master_port").unwrap_or("?"));
        warning("role", "this server is a replica: functions run on masters only", format!("use its master, {master}"))
    })
}

fn interpreter(facts: &Facts) -> Option<Finding> {
    Some(match facts.interpreter.as_ref()? {
        Ok((python, package)) => {
            let path = facts.info.get("rg_python").unwrap_or("?");
            let module = dotted(facts.module.unwrap_or(0));
            if package.starts_with(&module) {
                ok("interpreter", format!("Python {python} at {path}, package redgrease {package}"))
            } else {
                let message =
                    format!("the package redgrease {package} of {path} is not of the module's version {module}");
                warning("interpreter", message, format!("{path} -m pip install redgrease=={module}"))
            }
        }
        Err(failure) => {
            let fix = failure.fix.as_deref().unwrap_or(
                "load the module with the argument Python /path/to/python3, of an environment with the package redgrease",
            );
            let message = format!("no function can be run: {}", failure.what.lines().last().unwrap_or_default());
            Finding { class: failure.class, ..error("interpreter", message, fix) }
        }
    })
}

fn workers(facts: &Facts) -> Finding {
    let info = &facts.info;
    let (count, died) = (info.number("rg_workers"), info.number("rg_workers_died"));
    if died > 0 {
        let message = format!("{died} worker processes have died since the start");
        return warning("workers", message, "the log of the server says why, on the lines with the word worker");
    }
    ok("workers", format!("{count}, with {}", show_bytes(info.number("rg_CurrAllocated"))))
}

fn isolation(facts: &Facts) -> Option<Finding> {
    let workers = facts.info.workers();
    // A worker that has just started has not yet said how it is confined.
    let open = workers
        .iter()
        .filter(|worker| !worker.isolation.is_empty())
        .find(|worker| !worker.isolation.contains("landlock") || !worker.isolation.contains("seccomp"))?;
    let message = match open.isolation.as_str() {
        "off" => "worker processes are not confined by the kernel".to_owned(),
        some => format!("worker processes are confined by {some} only"),
    };
    Some(warning(
        "isolation",
        message,
        "set WorkerIsolation to 1, on a kernel with Landlock and seccomp: docs/security.md",
    ))
}

/// Things that wait because a limit is reached.
fn load(facts: &Facts) -> Vec<Finding> {
    let info = &facts.info;
    let mut found = Vec::new();
    let waiting = info.number("rg_sessions_waiting");
    if waiting > 0 {
        let message = format!("{waiting} sessions wait for a worker");
        found.push(warning("load", message, "raise MaxWorkers, or unregister what is not needed"));
    }
    let events = info.number("rg_events_pending_bytes");
    let limit: u64 = facts.setting("rg.PendingEventBytesMax").and_then(|value| value.parse().ok()).unwrap_or(0);
    if limit > 0 && events as f64 > NEARLY * limit as f64 {
        let message = format!("{} of events wait, of at most {}", show_bytes(events), show_bytes(limit));
        found.push(warning("load", message, "make the functions faster, or raise PendingEventBytesMax"));
    }
    found
}

fn registrations(facts: &Facts) -> Vec<Finding> {
    let rows = match &facts.registrations {
        Ok(rows) => rows,
        Err(failure) => {
            let fix = failure.fix.as_deref().unwrap_or("look at the log of the server");
            return vec![Finding { class: failure.class, ..error("registrations", &failure.what, fix) }];
        }
    };
    let failing: Vec<_> = rows.iter().filter(|row| row.failed > 0).collect();
    if failing.is_empty() {
        return vec![ok("registrations", format!("{}, none has failed", rows.len()))];
    }
    let told = failing.iter().take(FAILING_SHOWN).map(|row| {
        let message = format!(
            "{} ({}) failed in {} of {} runs: {}",
            row.id, row.source, row.failed, row.triggered, row.last_error
        );
        warning("registrations", message, format!("`redgrease show {}` has the last error", row.id))
    });
    let mut told: Vec<Finding> = told.collect();
    if failing.len() > FAILING_SHOWN {
        let message = format!("{} more have failed", failing.len() - FAILING_SHOWN);
        told.push(warning("registrations", message, "`redgrease ls registrations` lists all"));
    }
    told
}

fn persistence(facts: &Facts) -> Option<Finding> {
    let count = facts.registrations.as_ref().map_or(0, Vec::len);
    let is_off = facts.setting("appendonly") == Some("no") && facts.setting("save") == Some("");
    (count > 0 && is_off).then(|| {
        let message = format!(
            "nothing is saved: {} will be lost when the server stops",
            counted(count as u64, "registration", "registrations")
        );
        warning("persistence", message, "CONFIG SET appendonly yes (or `redgrease serve --dir DIR`)")
    })
}

fn memory(facts: &Facts) -> Vec<Finding> {
    let info = &facts.info;
    let mut found = Vec::new();
    let (used, limit) = (info.number("used_memory"), info.number("maxmemory"));
    if limit > 0 && used as f64 > NEARLY * limit as f64 && info.get("maxmemory_policy") == Some("noeviction") {
        let message = format!("{} of maxmemory {} are used: writes will fail", show_bytes(used), show_bytes(limit));
        found.push(warning("memory", message, "raise maxmemory, or choose a maxmemory-policy that evicts keys"));
    }
    let total = info.number("total_system_memory");
    let both = info.number("used_memory_rss") + info.number("rg_CurrAllocated");
    if total > 0 && both as f64 > NEARLY * total as f64 {
        let message = format!("server and workers use {} of {}", show_bytes(both), show_bytes(total));
        found.push(warning("memory", message, "lower MaxWorkers, WorkerBytesMax or maxmemory"));
    }
    found
}

fn access(facts: &Facts) -> Option<Finding> {
    let is_local = facts.setting("bind")?.split_whitespace().all(|address| {
        let address = address.trim_start_matches('-');
        address == "::1" || address.starts_with("127.")
    });
    let is_open = facts.setting("protected-mode") == Some("no") && facts.setting("requirepass") == Some("");
    (is_open && !is_local).then(|| {
        let message = "the server listens on the network without a password: anyone who reaches the port can run code";
        warning("access", message, "set a password (requirepass, or ACL users), protected-mode yes, or bind 127.0.0.1")
    })
}

fn cluster(facts: &Facts) -> Vec<Finding> {
    if facts.info.number("cluster_enabled") == 0 {
        return Vec::new();
    }
    let masters = facts.nodes.iter().filter(|node| node.is_master).count();
    let problems: Vec<Finding> = facts.nodes.iter().filter_map(|node| of_node(node, facts.module)).collect();
    if !problems.is_empty() {
        return problems;
    }
    vec![ok(
        "cluster",
        format!(
            "{masters} masters, {} replicas, all with this module; functions run on all masters",
            facts.nodes.len() - masters
        ),
    )]
}

fn of_node(node: &Node, module: Option<u64>) -> Option<Finding> {
    let address = &node.address;
    match &node.module {
        Err(reason) => {
            let message = format!("node {address} cannot be asked: {reason}");
            Some(error("cluster", message, "start it, or let this machine connect to it"))
        }
        Ok(None) => {
            let message = format!("node {address} does not have the module");
            Some(error("cluster", message, "load the module on every node, replicas too"))
        }
        Ok(Some(version)) if Some(*version) != module => {
            let message = format!("node {address} has version {} of the module", dotted(*version));
            Some(warning("cluster", message, "load the same version on every node"))
        }
        Ok(Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::Registered;
    use super::*;
    use crate::failure::Failure;
    use crate::info::Info;

    const HEALTHY: &str = "valkey_version:9.1.2\nrole:master\nrg_workers:2\nrg_python:/p\nmaxmemory:0\n\
                           rg_worker_1:pid=1,isolation=landlock seccomp\n";

    fn healthy() -> Facts {
        Facts {
            place: "here".to_owned(),
            info: Info::parse(HEALTHY),
            module: Some(10_203),
            interpreter: Some(Ok(("3.11.7".to_owned(), "1.2.3.dev0".to_owned()))),
            ..Facts::default()
        }
    }

    fn with_info(more: &str) -> Facts {
        Facts { info: Info::parse(&format!("{more}\n{HEALTHY}")), ..healthy() }
    }

    fn settings(pairs: &[(&str, &str)]) -> Facts {
        let settings = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Facts { settings, ..healthy() }
    }

    fn problems(facts: &Facts) -> Vec<(Level, &'static str)> {
        let found = examine(facts, "1.2.3-dev.0");
        assert!(found.iter().all(|finding| (finding.level == Level::Ok) == finding.fix.is_none()), "{found:?}");
        found.iter().filter(|finding| finding.level != Level::Ok).map(|finding| (finding.level, finding.name)).collect()
    }

    #[test]
    fn a_healthy_server_has_no_problem() {
        assert_eq!(problems(&healthy()), []);
        assert_eq!(problems(&with_info("rg_worker_2:pid=2,isolation=")), [], "a worker that has just started");
    }

    #[test]
    fn each_problem_is_found_with_its_fix() {
        use Level::{Error, Warning};
        let failing = Registered { failed: 1, ..Registered::default() };
        let node = |module| Node { address: "n:1".to_owned(), is_master: true, module };
        let in_cluster = |module| Facts { nodes: vec![node(module)], ..with_info("cluster_enabled:1") };
        for (facts, expected) in [
            (Facts { info: Info::parse("redis_version:6.2.1\nrole:master"), ..healthy() }, (Error, "server")),
            (Facts { module: None, ..healthy() }, (Error, "module")),
            (
                Facts {
                    module: Some(10_204),
                    interpreter: Some(Ok(("3".to_owned(), "1.2.4".to_owned()))),
                    ..healthy()
                },
                (Warning, "module"),
            ),
            (Facts { interpreter: None, ..with_info("role:slave") }, (Warning, "role")),
            (
                Facts { interpreter: Some(Err(Failure::plain(Class::Failed, "NOPYTHON"))), ..healthy() },
                (Error, "interpreter"),
            ),
            (
                Facts { interpreter: Some(Ok(("3".to_owned(), "9.9.9".to_owned()))), ..healthy() },
                (Warning, "interpreter"),
            ),
            (with_info("rg_workers_died:2"), (Warning, "workers")),
            (with_info("rg_worker_2:pid=2,isolation=seccomp"), (Warning, "isolation")),
            (with_info("rg_worker_2:pid=2,isolation=off"), (Warning, "isolation")),
            (with_info("rg_sessions_waiting:1"), (Warning, "load")),
            (
                Facts {
                    settings: vec![("rg.PendingEventBytesMax".to_owned(), "100".to_owned())],
                    ..with_info("rg_events_pending_bytes:90")
                },
                (Warning, "load"),
            ),
            (Facts { registrations: Ok(vec![failing.clone(); 1]), ..healthy() }, (Warning, "registrations")),
            (
                Facts { registrations: Err(Failure::plain(Class::Denied, "NOPERM x")), ..healthy() },
                (Error, "registrations"),
            ),
            (with_info("maxmemory:100\nused_memory:90\nmaxmemory_policy:noeviction"), (Warning, "memory")),
            (with_info("total_system_memory:100\nused_memory_rss:90"), (Warning, "memory")),
            (settings(&[("bind", "* -::*"), ("protected-mode", "no"), ("requirepass", "")]), (Warning, "access")),
            (in_cluster(Err("down".to_owned())), (Error, "cluster")),
            (in_cluster(Ok(None)), (Error, "cluster")),
            (in_cluster(Ok(Some(10_000))), (Warning, "cluster")),
        ] {
            assert_eq!(problems(&facts), [expected], "{facts:?}");
        }
    }

    #[test]
    fn a_server_that_saves_nothing_is_fine_until_something_is_registered() {
        let mut facts = settings(&[("save", ""), ("appendonly", "no"), ("bind", "127.0.0.1 -::1")]);
        assert_eq!(problems(&facts), []);
        facts.registrations = Ok(vec![Registered::default()]);
        assert_eq!(problems(&facts), [(Level::Warning, "persistence")]);
    }

    #[test]
    fn the_class_of_an_error_is_that_of_its_cause() {
        let class = |facts: Facts| {
            let found = examine(&facts, "1.2.3");
            found.into_iter().find(|finding| finding.level == Level::Error).map(|finding| finding.class)
        };
        assert_eq!(class(Facts { module: None, ..healthy() }), Some(Class::NoModule));
        assert_eq!(
            class(Facts { interpreter: Some(Err(Failure::plain(Class::Denied, "NOPERM x"))), ..healthy() }),
            Some(Class::Denied)
        );
    }
}
