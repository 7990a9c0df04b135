//! How much memory an input may cost.
//!
//! Owns the count of what is allocated while a target runs, and the bound: so much for each byte of the input, and what tables
//! and templates take in any case. libFuzzer's own limit is only looked at now and then, and is hundreds of megabytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A parsed JSON value takes about 70 bytes for one digit and comma; targets parse an input several times, side by side.
const BYTES_PER_BYTE: usize = 4_096;
/// A prompt at its bound, several times: a template may fill it whatever its own length, and it is rendered twice.
const BYTES_IN_ANY_CASE: usize = 192 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn taken(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    MOST.fetch_max(held, Ordering::Relaxed);
}

fn given(bytes: usize) {
    HELD.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: each call goes on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        given(layout.size());
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        given(layout.size());
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Runs the target, and fails if it ever held too much.
pub fn bounded(input: &[u8], target: fn(&[u8])) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    target(input);
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    let bound = BYTES_IN_ANY_CASE + BYTES_PER_BYTE * input.len();
    assert!(most <= bound, "{most} bytes were held for an input of {}", input.len());
}
