//! What a file costs the meta server in memory, counted by the allocator: a figure that must not creep up.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unsafe_code,
    reason = "a test that cannot go on fails; an allocator is unsafe"
)]
use kfs_core::ids::ClusterId;
use kfs_core::meta::checkpoint::{Loader, Writer};
use kfs_core::meta::fill::{Filled, Order, Records};
use kfs_core::meta::oplog::More;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What glibc takes beside each allocation, and to what it rounds.
const HEAD_BYTES: usize = 8;
const STEP_BYTES: usize = 16;

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

const fn taken(layout: Layout) -> usize {
    let whole = (layout.size() + HEAD_BYTES).next_multiple_of(STEP_BYTES);
    if whole < 32 { 32 } else { whole }
}

// SAFETY: it does what the system's does, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: as asked.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: as asked.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FILES: u64 = 1_000_000;

fn held<T>(make: impl FnOnce() -> T) -> (T, f64) {
    let before = HELD.load(Ordering::Relaxed);
    let made = make();
    let grown = HELD.load(Ordering::Relaxed) - before;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let each = grown as f64 / FILES as f64;
    (made, each)
}

fn filled(order: Order) -> Filled {
    let mut filled = Filled::default();
    for logged in Records::new(FILES, order) {
        filled.apply(&logged).unwrap();
    }
    filled
}

/// Bytes a file, as counted when this was last looked at: made in sequence, at random, loaded.
const COUNTED: [f64; 3] = [87.2, 87.6, 83.5];
/// What may be lost before somebody has to look: a bit more than noise, as there is none.
const CREEP: f64 = 1.05;

/// The goal is 250; of these, some 25 are the name.
#[test]
#[cfg_attr(
    not(madsim),
    ignore = "scripts/test runs it optimized, with the simulation's profile: else it takes minutes"
)]
fn a_million_files_of_one_chunk_with_three_replicas_cost_what_they_did() {
    let (sequence, in_sequence) = held(|| filled(Order::Sequence));
    let (random, at_random) = held(|| filled(Order::Random));
    drop(random);
    let (loaded, when_loaded) = held(|| {
        let mut writer = Writer::new(sequence.state().clone());
        let mut loader = Loader::new("checkpoint".into(), ClusterId(1));
        while let Some(bytes) = writer.next_bytes() {
            assert!(loader.feed(&bytes, More::Follows).unwrap().is_none());
        }
        let (state, _) = loader.feed(&[], More::Ends).unwrap().unwrap();
        Filled::of(state)
    });
    assert_eq!(loaded.state(), sequence.state());
    let counted = [in_sequence, at_random, when_loaded];
    println!("bytes a file, made in sequence, at random, loaded: {counted:.1?}");
    for (now, before) in counted.iter().zip(COUNTED) {
        assert!(*now < before * CREEP, "{counted:.1?}; {COUNTED:.1?} before");
        // Better figures are to be written down, so that what was won is kept.
        assert!(*now > before / CREEP, "{counted:.1?}; {COUNTED:.1?} before");
    }
}
