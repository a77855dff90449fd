//! Seeds that run beside each other in threads, and the panics of their runs.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Nested sync executions need more stack than a thread has by default.
const STACK_BYTES: usize = 256 << 20;

thread_local! {
    /// The last panic of an engine in this thread, which is not printed.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs seeds in several threads. Returns the failures in the order of their seeds, or the first one that is found.
pub fn run_seeds<F: Send>(
    first: u64,
    count: u64,
    stop_at_first: bool,
    run_seed: impl Fn(u64) -> Result<(), F> + Sync,
) -> Vec<F> {
    let (next, stop, failures) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(Vec::new()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            if let Err(failure) = run_seed(seed) {
                failures.lock().unwrap().push((seed, failure));
                stop.store(stop_at_first, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work).unwrap();
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort_by_key(|(seed, _)| *seed);
    failures.into_iter().map(|(_, failure)| failure).collect()
}

/// Panics of runs are kept and not printed.
pub fn keep_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match std::thread::current().name() {
            // Threads of runs have no name.
            None => PANIC.set(Some(info.to_string())),
            Some(_) => usual(info),
        }));
    });
}

/// The last panic of a run in this thread.
pub fn last_panic() -> String {
    PANIC.take().unwrap_or_default()
}

/// Runs something in a thread like those of runs.
pub fn in_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

/// The number in a variable of the environment.
pub fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, got '{text}'")))
}
