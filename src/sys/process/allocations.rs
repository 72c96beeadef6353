//! Counts allocations, so that the lab can tell what its own clients cost.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator with a counter; the program makes it its global allocator. Counting costs one addition in
/// thread-local memory.
#[derive(Debug)]
pub struct Counting;

// SAFETY: every call goes unchanged to the system's allocator. Counting changes a thread-local number and allocates
// nothing; the number has no destructor, so it can be used at any time in a thread's life.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the rules of the trait, which are also those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

fn count() {
    COUNT.set(COUNT.get() + 1);
}

/// Allocations by this thread so far; 0 where [`Counting`] is not the global allocator.
#[must_use]
pub fn of_this_thread() -> u64 {
    COUNT.get()
}
