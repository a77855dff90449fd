//! Whether the server would take a client's writes now.
//!
//! The module API's own flag for this check also refuses commands that functions may use, so it is made by hand: the
//! server refuses clients' writes when it cannot save (`MISCONF`) or has too few replicas (`NOREPLICAS`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redgrease_ffi::CallOptions;

use crate::engine::Engine;

/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// The last answer.
#[derive(Default)]
pub struct Health {
    asked: Option<Instant>,
    refusal: Option<String>,
}

impl Engine {
    /// Why a client's write would be refused now, if it would; at most a second old.
    pub fn write_refusal(&self) -> Option<String> {
        let fresh = self.health.borrow().asked.is_some_and(|asked| asked.elapsed() < BELIEVED);
        if !fresh {
            // Asked before it is answered: the questions are commands, too.
            self.health.borrow_mut().asked = Some(Instant::now());
            let refusal = self.ask_for_refusal();
            self.health.borrow_mut().refusal = refusal;
        }
        self.health.borrow().refusal.clone()
    }

    fn ask_for_refusal(&self) -> Option<String> {
        let config = self.settings(&[b"config", b"get", b"stop-writes-on-bgsave-error"]);
        let stops = config.get("stop-writes-on-bgsave-error").is_some_and(|value| value == "yes");
        let saves = self.settings(&[b"config", b"get", b"save"]).get("save").is_some_and(|points| !points.is_empty());
        let persistence = self.information(b"persistence");
        let failed = |field: &str| persistence.get(field).is_some_and(|value| value == "err");
        if stops && saves && failed("rdb_last_bgsave_status") {
            return Some("MISCONF the server is configured to save snapshots, but cannot: writes are refused".into());
        }
        if failed("aof_last_write_status") {
            return Some("MISCONF Errors writing to the AOF file: writes are refused".into());
        }
        let wanted = self.settings(&[b"config", b"get", b"min-replicas-to-write"]);
        let wanted: u64 = wanted.get("min-replicas-to-write").and_then(|value| value.parse().ok()).unwrap_or(0);
        if wanted > 0 {
            let good =
                self.information(b"replication").get("min_slaves_good_slaves").and_then(|value| value.parse().ok());
            if good.unwrap_or(0) < wanted {
                return Some("NOREPLICAS Not enough good replicas to write.".into());
            }
        }
        None
    }

    /// Values of the server's options.
    pub fn settings(&self, argv: &[&[u8]]) -> HashMap<String, String> {
        let Ok(reply) = self.server.call(argv, CallOptions::default()) else { return HashMap::new() };
        let texts: Vec<String> =
            reply.view().elements().map(|item| String::from_utf8_lossy(item.bytes()).into_owned()).collect();
        texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    fn information(&self, section: &[u8]) -> HashMap<String, String> {
        let Ok(reply) = self.server.call(&[b"info", section], CallOptions::default()) else { return HashMap::new() };
        let text = String::from_utf8_lossy(reply.view().bytes()).into_owned();
        text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.into())).collect()
    }
}
