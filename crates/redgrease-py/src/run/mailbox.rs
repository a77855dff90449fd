//! What the server sends to an execution on a shard of several, until the execution takes it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use redgrease_core::frame::Records;

use crate::lock::lock;

/// Encoded records of one frame.
#[derive(Debug)]
pub struct Batch {
    /// Their number.
    pub count: u64,
    /// Their encoded form.
    pub bytes: Vec<u8>,
}

impl Batch {
    /// The records of a frame, if it has any.
    pub fn of(records: Records<'_>) -> Option<Batch> {
        (records.count > 0 || !records.bytes.is_empty())
            .then(|| Batch { count: records.count, bytes: records.bytes.to_vec() })
    }
}

/// One frame of the server.
#[derive(Debug)]
pub enum News {
    /// Records of the reader.
    Fed { batch: Option<Batch>, last: bool },
    /// Records of other shards for a stage.
    Arrived { stage: u64, batch: Option<Batch>, last: bool },
    /// Other shards have consumed records of a stage.
    Room { stage: u64, bytes: u64 },
    /// No record for this stage or one before it can change the result.
    Close { stage: u64 },
}

/// What has come and was not taken. Its size has the bounds that the server keeps: the windows of all shards.
#[derive(Debug, Default)]
pub struct Mailbox {
    news: Mutex<Vec<News>>,
    has_news: AtomicBool,
}

impl Mailbox {
    /// Adds what has come.
    pub fn put(&self, news: News) {
        let mut all = lock(&self.news);
        all.push(news);
        self.has_news.store(true, Ordering::Release);
    }

    /// Takes all that has come.
    pub fn take(&self) -> Vec<News> {
        let mut all = lock(&self.news);
        self.has_news.store(false, Ordering::Release);
        std::mem::take(&mut *all)
    }

    /// Whether something has come. Costs little: it is asked before each record.
    pub fn has_news(&self) -> bool {
        self.has_news.load(Ordering::Acquire)
    }
}
