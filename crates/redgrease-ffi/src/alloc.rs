//! The server's allocator.

use std::alloc::{GlobalAlloc, Layout};

use crate::table::filled;

/// Allocates with the server's functions, so that what the module uses is counted in the server's memory.
///
/// Before the module is loaded there is nothing to allocate with: Rust then reports that memory is out.
#[doc(hidden)]
pub struct ServerAllocator;

/// What the server's functions align blocks to, whatever allocator the server was built with.
const SERVER_ALIGN: usize = align_of::<usize>();

// SAFETY: blocks come from the server's functions, as large and as aligned as asked for, and go back to them as they were
// given: the layout says both times whether a block is padded. Nothing here unwinds.
unsafe impl GlobalAlloc for ServerAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(table) = filled() else { return std::ptr::null_mut() };
        // SAFETY: the server gives a block of any size, or ends.
        unsafe { aligned(layout, |size| (table.RedisModule_Alloc)(size).cast()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(table) = filled() else { return std::ptr::null_mut() };
        // SAFETY: as above.
        unsafe { aligned(layout, |size| (table.RedisModule_Calloc)(1, size).cast()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(table) = filled() {
            // SAFETY: the caller vouches that the block was made here with this layout, and is freed once.
            unsafe { (table.RedisModule_Free)(original(block, layout).cast()) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(table) = filled() else { return std::ptr::null_mut() };
        if layout.align() <= SERVER_ALIGN {
            // SAFETY: the caller vouches for the block, which is not padded.
            return unsafe { (table.RedisModule_Realloc)(block.cast(), size).cast() };
        }
        // SAFETY: the caller vouches for the block and that the new size fits the alignment; both blocks have the bytes
        // that are copied, and the old one is freed once.
        unsafe {
            let larger = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            larger.copy_from_nonoverlapping(block, layout.size().min(size));
            self.dealloc(block, layout);
            larger
        }
    }
}

/// A block of that layout from a function that aligns to [`SERVER_ALIGN`]. Where that is not enough, the block is padded in
/// front, and the word before it holds the address that the function gave.
///
/// # Safety
/// `allocate` gives blocks of the size it is asked for.
unsafe fn aligned(layout: Layout, allocate: impl FnOnce(usize) -> *mut u8) -> *mut u8 {
    if layout.align() <= SERVER_ALIGN {
        return allocate(layout.size());
    }
    let given = allocate(layout.size() + layout.align());
    // Between one word and the alignment: both are powers of two, and the block begins at a multiple of a word.
    let padding = layout.align() - given.addr() % layout.align();
    // SAFETY: the block has room for the padding and the size; the padding has room for one pointer.
    unsafe {
        let block = given.add(padding);
        block.cast::<*mut u8>().sub(1).write(given);
        block
    }
}

/// The address that the server gave for a block.
///
/// # Safety
/// [`aligned`] made the block with this layout.
unsafe fn original(block: *mut u8, layout: Layout) -> *mut u8 {
    if layout.align() <= SERVER_ALIGN {
        return block;
    }
    // SAFETY: `aligned` wrote it there.
    unsafe { block.cast::<*mut u8>().sub(1).read() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_where_the_server_aligns_to_words_only() {
        for align in [1, 2, 4, 8, 16, 64, 4096] {
            for (size, word) in [(1, 0), (24, 1), (100, 2), (5000, 7)] {
                // One area per block, which begins at any word.
                let mut area = vec![0_u64; 2048];
                let start: *mut u8 = area[word..].as_mut_ptr().cast();
                let layout = Layout::from_size_align(size, align).unwrap();
                let mut asked = 0;
                // SAFETY: the area is larger than what is asked for, and lives during the test.
                let (block, given) = unsafe {
                    let block = aligned(layout, |size| {
                        asked = size;
                        start
                    });
                    block.write_bytes(0xff, size);
                    (block, original(block, layout))
                };
                assert_eq!(block.addr() % align, 0, "{layout:?}");
                assert_eq!(given, start, "{layout:?}");
                assert!(block.addr() + size <= start.addr() + asked, "{layout:?} leaves its block");
            }
        }
    }
}
