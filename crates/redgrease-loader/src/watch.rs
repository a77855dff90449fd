//! Watches what was given: events of the file system, the connection to the server, and the end.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind, RemoveKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};

use crate::debounce::Debounce;
use crate::error::{Class, Error};
use crate::files::{Extent, Root};
use crate::loader::Loader;
use crate::log::Level;
use crate::patterns::Patterns;

/// Events that wait to be handled; when there are more, all files are looked at.
const EVENTS_MAX: usize = 10_000;
/// Time between two looks at the connection.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Times between attempts to connect again: each is twice the one before. There is no last attempt.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_LONGEST: Duration = Duration::from_secs(2);

/// Ends a watch, from any thread.
#[derive(Debug, Clone)]
pub struct Control {
    flags: Arc<Flags>,
    wake: SyncSender<Message>,
}

#[derive(Debug, Default)]
struct Flags {
    stopped: AtomicBool,
    /// Events were dropped.
    overflowed: AtomicBool,
}

#[derive(Debug)]
enum Message {
    Happened(Event),
    Wake,
}

impl Control {
    /// Ends the watch, after what it is doing.
    pub fn stop(&self) {
        self.flags.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Has the watch look at what is given.
    pub fn wake(&self) {
        // If the queue is full, the watch is awake.
        let _is_awake = self.wake.try_send(Message::Wake);
    }
}

/// A watch.
pub struct Watch {
    watcher: RecommendedWatcher,
    control: Control,
    messages: Receiver<Message>,
    /// The directories whose events arrive.
    watched: HashSet<PathBuf>,
    debounce: Debounce,
    connection: Connection,
}

/// The connection, and when to look at it again.
#[derive(Debug, Clone, Copy)]
enum Connection {
    Up {
        next_look: Instant,
    },
    /// The last error is reported when it is another one than before.
    Down {
        next_attempt: Instant,
        pause: Duration,
        error: Class,
    },
}

impl Watch {
    /// A watch that looks at files when this time has passed since their last change.
    ///
    /// # Errors
    /// The system does not report events of files.
    pub fn new(delay: Duration) -> Result<Self, Error> {
        let (wake, messages) = sync_channel(EVENTS_MAX);
        let control = Control { flags: Arc::default(), wake };
        let sender = control.clone();
        let watcher = RecommendedWatcher::new(
            move |event: notify::Result<Event>| {
                let lost = match event {
                    Ok(event) if event.need_rescan() => true,
                    Ok(event) if matters(&event.kind) => sender.wake.try_send(Message::Happened(event)).is_err(),
                    Ok(_) => false,
                    Err(_) => true,
                };
                if lost {
                    sender.flags.overflowed.store(true, Ordering::SeqCst);
                    sender.wake();
                }
            },
            Config::default().with_follow_symlinks(false),
        );
        let connection = Connection::Up { next_look: Instant::now() + HEARTBEAT };
        let watcher = watcher.map_err(|error| cannot_watch(&error))?;
        Ok(Self { watcher, control, messages, watched: HashSet::new(), debounce: Debounce::new(delay), connection })
    }

    /// Ends this watch.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Watches until it is stopped. What fails is logged.
    ///
    /// # Errors
    /// What was given cannot be watched.
    pub fn run(&mut self, loader: &Mutex<Loader>) -> Result<(), Error> {
        self.look_at_all(&mut lock(loader))?;
        let mut roots = lock(loader).roots().len();
        while !self.control.flags.stopped.load(Ordering::SeqCst) {
            let message = self.messages.recv_timeout(self.until_next());
            let mut loader = lock(loader);
            let now = Instant::now();
            match message {
                Ok(message) => {
                    // Events of one change come together.
                    for message in std::iter::once(message).chain(self.messages.try_iter().collect::<Vec<_>>()) {
                        if let Message::Happened(event) = message {
                            self.heard(&event, &loader, now);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if self.control.flags.overflowed.swap(false, Ordering::SeqCst) {
                self.debounce.signal_first(everything(), now);
            }
            if std::mem::replace(&mut roots, loader.roots().len()) != loader.roots().len() {
                self.look_at_all(&mut loader)?;
            }
            self.look_at_connection(&mut loader, now)?;
            self.handle_due(&mut loader, now)?;
        }
        Ok(())
    }

    fn until_next(&self) -> Duration {
        let next = match self.connection {
            Connection::Up { next_look } => self.debounce.next().map_or(next_look, |due| due.min(next_look)),
            // What is due waits for the connection.
            Connection::Down { next_attempt, .. } => next_attempt,
        };
        next.saturating_duration_since(Instant::now())
    }

    /// Takes note of an event.
    fn heard(&mut self, event: &Event, loader: &Loader, now: Instant) {
        for path in &event.paths {
            if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)))
                && self.watched.remove(path)
            {
                // It is another directory if there is one again.
                let _is_gone = self.watcher.unwatch(path);
            }
            let patterns = &loader.settings().patterns;
            for root in loader.roots() {
                if root.kind(path, patterns).is_some() && *path != root.path || is_file_of(root, path) {
                    self.debounce.signal(path.clone(), now);
                } else if *path == root.path
                    || root.below(path).is_some() && may_bring_files(event, path, root, patterns)
                {
                    self.debounce.signal_first(everything(), now);
                }
            }
        }
    }

    fn handle_due(&mut self, loader: &mut Loader, now: Instant) -> Result<(), Error> {
        if matches!(self.connection, Connection::Down { .. }) {
            return Ok(());
        }
        let mut due = self.debounce.take(now);
        let count = due.len();
        due.retain(|path| *path != everything());
        if due.len() < count {
            self.look_at_all(loader)?;
        }
        let result = loader.look_at(&due);
        self.note(result, loader, now);
        Ok(())
    }

    /// Watches the directories that exist now, and loads what has changed in them.
    fn look_at_all(&mut self, loader: &mut Loader) -> Result<(), Error> {
        self.watch_directories(loader)?;
        let debounce = &self.debounce;
        let result = loader.look_again(&|path| !debounce.waits(path));
        self.note(result, loader, Instant::now());
        Ok(())
    }

    fn watch_directories(&mut self, loader: &Loader) -> Result<(), Error> {
        loop {
            let wanted = loader.roots().iter().flat_map(|root| directories(root, &loader.settings().patterns));
            let new: Vec<PathBuf> = wanted.filter(|path| !self.watched.contains(path)).collect();
            let mut added = 0;
            for path in new {
                match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                    Ok(()) => added += usize::from(self.watched.insert(path)),
                    Err(_) if !path.is_dir() => {} // it went away in the meantime
                    Err(error) => return Err(cannot_watch(&error)),
                }
            }
            // Directories may have been made in a new one before it was watched.
            if added == 0 {
                return Ok(());
            }
        }
    }

    // -- the connection ------------------------------------------------------------------------------------------

    fn look_at_connection(&mut self, loader: &mut Loader, now: Instant) -> Result<(), Error> {
        match self.connection {
            Connection::Up { next_look } if now >= next_look => {
                self.connection = Connection::Up { next_look: now + HEARTBEAT };
                let result = loader.server().ping();
                self.note(result, loader, now);
            }
            Connection::Down { next_attempt, pause, error: last } if now >= next_attempt => match loader.connect() {
                Ok(()) => {
                    loader.log(Level::Info, &format!("connected to {} again", loader.place()));
                    self.connection = Connection::Up { next_look: now + HEARTBEAT };
                    let result = loader.load_missing();
                    self.note(result, loader, now);
                    self.look_at_all(loader)?;
                }
                Err(error) => {
                    let level = if error.class == last { Level::Debug } else { Level::Warning };
                    loader.log(level, &error.to_string());
                    let pause = (pause * 2).min(RECONNECT_LONGEST);
                    let next_attempt = Instant::now() + pause;
                    self.connection = Connection::Down { next_attempt, pause, error: error.class };
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// Takes note of an error of the connection, and logs any error.
    fn note(&mut self, result: Result<(), Error>, loader: &Loader, now: Instant) {
        let Err(error) = result else { return };
        if self.control.flags.stopped.load(Ordering::SeqCst) {
            return; // the signal that ends the program interrupts what waits for a reply, too
        }
        let is_lost = matches!(error.class, Class::Unreachable | Class::Timeout | Class::Tls | Class::NoModule);
        if is_lost && matches!(self.connection, Connection::Up { .. }) {
            let (next_attempt, pause) = (now + RECONNECT_FIRST, RECONNECT_FIRST);
            self.connection = Connection::Down { next_attempt, pause, error: error.class };
            loader.log(Level::Error, &format!("{}; connecting again until it works", error.what));
        } else if !is_lost {
            loader.log(Level::Error, &error.to_string());
        }
    }
}

fn lock(loader: &Mutex<Loader>) -> MutexGuard<'_, Loader> {
    loader.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands for all files.
fn everything() -> PathBuf {
    PathBuf::new()
}

/// Reads are no changes.
fn matters(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(_))
}

fn is_file_of(root: &Root, path: &Path) -> bool {
    root.extent == Extent::File && *path == root.path
}

/// Whether files may have come or gone with this path, which is not one itself: it is a directory, or a link.
fn may_bring_files(event: &Event, path: &Path, root: &Root, patterns: &Patterns) -> bool {
    let is_renamed = matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
    let is_gone = matches!(event.kind, EventKind::Remove(RemoveKind::Folder | RemoveKind::Any));
    let is_ignored = root.below(path).is_none_or(|below| patterns.is_ignored(below));
    is_renamed || !is_ignored && (is_gone || path.is_dir())
}

/// The directories whose events tell about a root: its own ones, and the one above, in which it may be replaced.
fn directories(root: &Root, patterns: &Patterns) -> Vec<PathBuf> {
    let above = root.path.parent().map(Path::to_owned);
    let own = match root.extent {
        Extent::File => Vec::new(),
        Extent::Directory => vec![root.path.clone()],
        Extent::Tree => root.scan(patterns).directories,
    };
    above.into_iter().chain(own).collect()
}

fn cannot_watch(error: &notify::Error) -> Error {
    let fix = match error.kind {
        notify::ErrorKind::MaxFilesWatch => "raise the limit: sysctl fs.inotify.max_user_watches=1048576",
        _ => "raise fs.inotify.max_user_instances if many programs watch files, or load the scripts without --watch",
    };
    Error::new(Class::Failed, format!("the files cannot be watched: {error}"), fix)
}
