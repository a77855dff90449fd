//! The thread, which runs as long as the server once there was a link.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use redgrease_engine::effect::Argv;
use redgrease_engine::id::LinkNo;
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::LinkReply;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::connect::open;
use super::exchange::exchange;
use super::tls::TlsConfigs;
use crate::cluster::target::Target;

/// Threads that look names up. A lookup cannot be cancelled, so some may still run for links that were given up.
const LOOKUP_THREADS_MAX: usize = 4;
/// How long such a thread waits for the next name.
const LOOKUP_THREAD_IDLE: Duration = Duration::from_secs(10);

/// A link to be opened.
pub struct Opening {
    /// Its number.
    pub link: LinkNo,
    /// Where it goes.
    pub target: Target,
    /// What is sent.
    pub commands: UnboundedReceiver<Argv>,
    /// Dropped when the link is closed.
    pub closed: oneshot::Receiver<()>,
}

/// What happened to a link.
pub enum Report {
    /// It is open.
    Opened,
    /// A reply.
    Reply(LinkReply),
    /// It could not be opened, or was lost.
    Closed(LinkFailure),
}

/// Tells the main thread what happens.
#[derive(Clone)]
pub struct Reporter {
    /// To the main thread.
    pub reports: Sender<(LinkNo, Report)>,
    /// Signalled after each report.
    pub ready: Arc<OwnedFd>,
}

impl Reporter {
    /// Tells the main thread.
    pub fn report(&self, link: LinkNo, reports: impl IntoIterator<Item = Report>) {
        for report in reports {
            // Fails only when the server ends.
            let _ = self.reports.send((link, report));
        }
        self.signal();
    }

    /// Has the main thread look at reports.
    pub fn signal(&self) {
        // Fails only if 2^64 signals were not taken.
        let _ = rustix::io::write(&self.ready, &1u64.to_ne_bytes());
    }
}

/// Starts the thread. Links are opened by sending them there.
///
/// # Errors
/// The system refuses the thread, or what it needs.
pub fn start(reporter: Reporter) -> Result<UnboundedSender<Opening>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LOOKUP_THREADS_MAX)
        .thread_keep_alive(LOOKUP_THREAD_IDLE)
        .thread_name("rg-lookup")
        .build()
        .map_err(|error| error.to_string())?;
    let (sender, mut openings) = unbounded_channel::<Opening>();
    let configs = Arc::new(TlsConfigs::default());
    let body = async move {
        while let Some(opening) = openings.recv().await {
            tokio::spawn(supervise(opening, reporter.clone(), Arc::clone(&configs)));
        }
    };
    std::thread::Builder::new()
        .name("rg-links".to_owned())
        .spawn(move || runtime.block_on(body))
        .map_err(|error| error.to_string())?;
    Ok(sender)
}

/// Runs a link until it is closed or lost. A panic ends the link only.
async fn supervise(opening: Opening, reporter: Reporter, configs: Arc<TlsConfigs>) {
    let Opening { link, target, commands, closed } = opening;
    let replies = reporter.clone();
    let mut running = tokio::spawn(async move {
        let stream = match open(&target, &configs).await {
            Ok(stream) => stream,
            Err(failure) => return failure,
        };
        replies.report(link, [Report::Opened]);
        exchange(stream, commands, |found| replies.report(link, found.into_iter().map(Report::Reply))).await
    });
    let failure = tokio::select! {
        _ = closed => return running.abort(),
        ended = &mut running => ended.unwrap_or_else(|error| LinkFailure::Lost(format!("INTERNAL {error}"))),
    };
    reporter.report(link, [Report::Closed(failure)]);
}
