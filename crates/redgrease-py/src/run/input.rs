//! Records that an execution has got and not processed.

/// Records that were read in part.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    /// Where the next one begins.
    pub(super) offset: usize,
    /// Records that are left.
    pub(super) left: u64,
}
