//! Shared memory: a sealed memory file, mapped by both processes.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::protocol::{Memory, Words};

/// Bytes that one ring holds.
pub const CAPACITY: usize = 1 << 20;
/// Bytes at the front of the memory, for the words of both rings.
const WORDS_BYTES: usize = 4096;
const WORDS_STRIDE: usize = WORDS_BYTES / 2;
/// Size of the memory: the words, then the bytes of both rings.
const MEMORY_BYTES: usize = WORDS_BYTES + 2 * CAPACITY;
/// The size never changes, so that no access can lie behind the end, and no further seal can be set.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

const _: () = assert!(size_of::<Words>() <= WORDS_STRIDE && align_of::<Words>() <= WORDS_STRIDE);
const _: () = assert!(CAPACITY.is_power_of_two());

/// A mapping of the whole memory.
#[derive(Debug)]
struct Mapping(NonNull<u8>);

// SAFETY: the mapping belongs to no thread. What lies in it is reached by atomics, or by copies whose places the two ends of
// a ring keep apart; `Mapping` itself gives out no references to bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn of(file: impl AsFd) -> Result<Mapping, Errno> {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours. The file has MEMORY_BYTES bytes
        // and is sealed against shrinking (both were checked or set by the callers), so every access within is backed.
        let start = unsafe { mmap(std::ptr::null_mut(), MEMORY_BYTES, flags, MapFlags::SHARED, file, 0)? };
        let mapping = Mapping(NonNull::new(start.cast()).expect("mmap never returns the null page"));
        // A child that user code forks must not write to the rings of its parent.
        // SAFETY: the range is exactly our own mapping; the advice changes nothing in this process.
        unsafe { madvise(start, MEMORY_BYTES, Advice::LinuxDontFork)? };
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `Mapping::of` with this size, and the last user of it is gone.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), MEMORY_BYTES) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own can be unmapped");
    }
}

/// The memory of one of the two rings.
#[derive(Debug, Clone)]
pub struct RingMemory {
    mapping: Arc<Mapping>,
    ring: usize,
}

impl RingMemory {
    fn bytes(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= CAPACITY && len <= CAPACITY - at, "{len} bytes at {at} are outside of a ring of {CAPACITY}");
        // SAFETY: the place lies within the mapping, by the assertion and the layout.
        unsafe { self.mapping.0.as_ptr().add(WORDS_BYTES + self.ring * CAPACITY + at) }
    }
}

impl Memory for RingMemory {
    fn words(&self) -> &Words {
        // SAFETY: the place is aligned (a page and a multiple of WORDS_STRIDE), lies within the mapping, which lives as long
        // as `self`, and holds nothing but atomics, for which every bit pattern is valid. The other process writes to them
        // with atomic operations; if it does otherwise, a load still gives some value, and every value is checked.
        unsafe { self.mapping.0.add(self.ring * WORDS_STRIDE).cast::<Words>().as_ref() }
    }

    fn capacity(&self) -> usize {
        CAPACITY
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        let to = self.bytes(at, bytes.len());
        // SAFETY: `to` has space for the bytes (checked by `bytes`), and does not overlap with private memory. An honest reader
        // does not read this place before the head is published; what a dishonest one reads meanwhile is its own affair.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    fn get(&self, at: usize, len: usize, to: &mut Vec<u8>) {
        let from = self.bytes(at, len);
        to.reserve(len);
        // SAFETY: `from` has `len` bytes (checked by `bytes`), the vector has space for as many, and they do not overlap. A
        // dishonest writer may change them during the copy: any bytes may result, which are parsed only afterwards, from
        // the private copy. The copied bytes are initialised when the length is set.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to.as_mut_ptr().add(to.len()), len);
            to.set_len(to.len() + len);
        }
    }
}

/// Creates the memory: the rings and the file to be handed to the other process.
///
/// # Errors
/// The kernel gives no memory file, or no mapping of it.
pub fn create() -> Result<([RingMemory; 2], OwnedFd), Errno> {
    let file = memfd_create("redgrease-ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, MEMORY_BYTES as u64)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok((rings(&file)?, file))
}

/// Maps the memory that the other process created.
///
/// # Errors
/// The file is not one of [`create`]: [`Errno::INVAL`]; or it cannot be mapped.
pub fn open(file: &OwnedFd) -> Result<[RingMemory; 2], Errno> {
    if fstat(file)?.st_size != MEMORY_BYTES as i64 || !fcntl_get_seals(file)?.contains(SEALS) {
        return Err(Errno::INVAL);
    }
    rings(file)
}

fn rings(file: &OwnedFd) -> Result<[RingMemory; 2], Errno> {
    let mapping = Arc::new(Mapping::of(file)?);
    Ok([0, 1].map(|ring| RingMemory { mapping: Arc::clone(&mapping), ring }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mappings_show_the_same_bytes_and_rings_are_apart() {
        let (ours, file) = create().unwrap();
        let theirs = open(&file).unwrap();
        let last = CAPACITY - 3;
        ours[0].put(last, b"abc");
        ours[1].put(0, b"xyz");
        let mut read = Vec::new();
        theirs[0].get(last, 3, &mut read);
        theirs[1].get(0, 3, &mut read);
        theirs[0].get(0, 1, &mut read);
        assert_eq!(read, b"abcxyz\0");
    }

    #[test]
    fn another_file_is_refused_and_the_size_is_fixed() {
        let (_, file) = create().unwrap();
        assert_eq!(ftruncate(&file, 1), Err(Errno::PERM));
        assert_eq!(ftruncate(&file, 1 << 30), Err(Errno::PERM));
        let other = memfd_create("other", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&other, MEMORY_BYTES as u64).unwrap();
        assert_eq!(open(&other).unwrap_err(), Errno::INVAL, "it is not sealed");
        let small = memfd_create("small", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fcntl_add_seals(&small, SEALS).unwrap();
        assert_eq!(open(&small).unwrap_err(), Errno::INVAL, "it is empty");
    }

    #[test]
    #[should_panic(expected = "outside of a ring")]
    fn a_place_outside_is_refused() {
        let (rings, _) = create().unwrap();
        rings[0].put(CAPACITY - 1, b"ab");
    }
}
