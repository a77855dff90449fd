//! Events of other processes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::flights::Flights;
use crate::options::Options;
use crate::store::redis::{Blocking, Server};

/// The source of other processes' events.
pub(crate) struct Wake {
    options: Options,
    flights: OnceLock<Arc<Flights>>,
    listening: Arc<AtomicBool>,
}

/// How long a listener remains after the last waiting call.
const LISTENER_IDLE: Duration = Duration::from_secs(10);

impl Wake {
    pub fn new(options: &Options) -> Self {
        Self { options: options.clone(), flights: OnceLock::new(), listening: Arc::default() }
    }

    /// Sets the recipient of events.
    pub fn deliver_to(&self, flights: &Arc<Flights>) {
        let _ = self.flights.set(Arc::clone(flights));
    }

    /// Starts listening unless it has started. Waiting calls also poll, so nothing depends on it.
    pub fn listen(&self) {
        let (Some(flights), Some(url)) = (self.flights.get().cloned(), &self.options.url) else { return };
        if self.listening.swap(true, Ordering::AcqRel) {
            return;
        }
        let (listening, options, url) = (Arc::clone(&self.listening), self.options.clone(), url.clone());
        let run = move || {
            if let Ok(server) = Server::new(&url, &options) {
                let mut wanted = Instant::now();
                let heard = Blocking::new(server).listen(|key| {
                    if let Some(key) = key {
                        flights.wake(key);
                    }
                    if flights.has_waiters() {
                        wanted = Instant::now();
                    }
                    wanted.elapsed() < LISTENER_IDLE
                });
                if let Err(outage) = heard {
                    tracing::debug!(?outage, "no events from the server; waiting by looking");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
            listening.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("filecache-events".to_owned()).spawn(run).is_err() {
            self.listening.store(false, Ordering::Release);
        }
    }
}
