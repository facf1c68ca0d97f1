//! An allocator that counts on the thread that asks it to, for a test binary of its own.
#![allow(unreachable_pub, reason = "a module of several tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // `try_with`: an allocation while a thread ends must not panic.
    let inside = INSIDE.try_with(Cell::get).unwrap_or(false);
    if inside {
        let _ = COUNT.try_with(|c| c.set(c.get() + 1));
    }
}

// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(); // freeing is as bad as allocating
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator while `run` runs.
pub fn counted(run: impl FnOnce()) -> u64 {
    COUNT.set(0);
    INSIDE.set(true);
    run();
    INSIDE.set(false);
    COUNT.get()
}
