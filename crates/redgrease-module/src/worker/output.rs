//! Standard output and error of a worker.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use redgrease_engine::input::Stream;
use rustix::io::Errno;

/// Bytes read in one go.
const CHUNK_BYTES: usize = 16 << 10;

/// The pipes.
pub struct Outputs {
    pipes: [OwnedFd; 2],
    ended: [Cell<bool>; 2],
}

/// What was read.
pub struct Chunk {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Nothing more comes.
    pub ended: bool,
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Out => 0,
        Stream::Error => 1,
    }
}

impl Outputs {
    pub(super) fn new(pipes: [OwnedFd; 2]) -> Outputs {
        Outputs { pipes, ended: Default::default() }
    }

    /// The descriptor of a pipe.
    pub fn fd(&self, stream: Stream) -> RawFd {
        self.pipes[index(stream)].as_raw_fd()
    }

    /// The pipes that have not ended.
    pub(super) fn open(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [0, 1].map(|index: usize| (!self.ended[index].get()).then(|| self.pipes[index].as_fd()))
    }

    /// Reads once; `None` when there is nothing now, or when the end was read before.
    pub fn read(&self, stream: Stream) -> Option<Chunk> {
        let index = index(stream);
        if self.ended[index].get() {
            return None;
        }
        let mut bytes = vec![0; CHUNK_BYTES];
        let count = match rustix::io::read(&self.pipes[index], &mut bytes[..]) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            Err(_) => 0,
        };
        bytes.truncate(count);
        self.ended[index].set(count == 0);
        Some(Chunk { bytes, ended: count == 0 })
    }
}
