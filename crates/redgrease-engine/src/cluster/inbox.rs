//! What links report: messages that have been received and not handled, in order, and which shards came and went.

use redgrease_core::id::ShardId;

use crate::limits::LINK_MESSAGE_COST_BYTES;
use crate::prelude::*;

/// Something that a link reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A link was made to a run of a shard with which nothing was in progress.
    Ready(ShardId),
    /// A message.
    Message {
        /// The sender.
        from: ShardId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Messages to and from a shard were lost: everything that was in progress with it has ended.
    Lost {
        /// The shard.
        shard: ShardId,
        /// Why.
        reason: String,
    },
}

impl Notice {
    /// The shard.
    #[must_use]
    pub fn shard(&self) -> ShardId {
        match self {
            Notice::Ready(shard) | Notice::Message { from: shard, .. } | Notice::Lost { shard, .. } => *shard,
        }
    }

    fn cost(&self) -> usize {
        let bytes = match self {
            Notice::Ready(_) => 0,
            Notice::Message { bytes, .. } => bytes.len(),
            Notice::Lost { reason, .. } => reason.len(),
        };
        bytes + LINK_MESSAGE_COST_BYTES
    }
}

/// What waits of one shard.
#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    bytes: usize,
    /// How many of them are losses.
    lost: usize,
    /// The last one is a loss.
    ends_lost: bool,
}

/// What waits to be handled.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    notices: VecDeque<Notice>,
    waiting: BTreeMap<ShardId, Waiting>,
    bytes: usize,
}

impl Inbox {
    /// Adds something. A loss directly after another one says nothing new.
    pub(super) fn push(&mut self, notice: Notice) {
        let waiting = self.waiting.entry(notice.shard()).or_default();
        let is_lost = matches!(notice, Notice::Lost { .. });
        if is_lost && waiting.ends_lost {
            return;
        }
        waiting.count += 1;
        waiting.bytes += notice.cost();
        waiting.lost += usize::from(is_lost);
        waiting.ends_lost = is_lost;
        self.bytes += notice.cost();
        self.notices.push_back(notice);
    }

    /// Takes what has waited longest.
    pub(super) fn pop(&mut self) -> Option<Notice> {
        let notice = self.notices.pop_front()?;
        self.bytes -= notice.cost();
        let shard = notice.shard();
        if let Some(waiting) = self.waiting.get_mut(&shard) {
            waiting.count -= 1;
            waiting.bytes -= notice.cost();
            waiting.lost -= usize::from(matches!(notice, Notice::Lost { .. }));
            if waiting.count == 0 {
                self.waiting.remove(&shard);
            }
        }
        Some(notice)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.notices.is_empty()
    }

    /// Whether a loss of the shard waits: what is sent to it now is lost, too.
    pub(super) fn is_losing(&self, shard: ShardId) -> bool {
        self.waiting.get(&shard).is_some_and(|waiting| waiting.lost > 0)
    }

    /// What everything costs that waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What that of one shard costs.
    pub(super) fn bytes_of(&self, shard: ShardId) -> usize {
        self.waiting.get(&shard).map_or(0, |waiting| waiting.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_by_shard_and_forgotten_when_it_is_taken() {
        let [one, other] = [b"1", b"2"].map(|id| ShardId::padded(id).unwrap());
        let lost = |shard, reason: &str| Notice::Lost { shard, reason: reason.into() };
        let message = Notice::Message { from: one, bytes: vec![0; 10] };
        let mut inbox = Inbox::default();
        for notice in [message.clone(), lost(one, "a"), lost(other, "b"), lost(one, "c"), Notice::Ready(one)] {
            inbox.push(notice);
        }
        assert_eq!(inbox.bytes_of(one), 3 * LINK_MESSAGE_COST_BYTES + 11);
        assert!(inbox.is_losing(one) && inbox.is_losing(other));
        inbox.push(lost(one, "d"));
        let taken: Vec<Notice> = core::iter::from_fn(|| inbox.pop()).collect();
        let expected = [message, lost(one, "a"), lost(other, "b"), Notice::Ready(one), lost(one, "d")];
        assert_eq!(taken, expected);
        assert!(inbox.is_empty() && inbox.waiting.is_empty() && inbox.bytes() == 0);
        assert!(!inbox.is_losing(one));
    }
}
