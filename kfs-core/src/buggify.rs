//! Buggify: rare paths pushed from inside. A site makes a machine do something allowed and unusual (a batch of
//! one record, a page of two entries, a time-out at once) where a simulation would meet it hardly ever.
//!
//! What a site makes a machine do breaks no promise; a run in which all of them fire must be as right as any.
//! Armed by the simulator, per thread, under `cfg(madsim)`; in every other build [`is`] is a constant `false`
//! and the names do not exist. Will Wilson described the idea for FoundationDB ("Testing Distributed Systems
//! with Deterministic Simulation", 2014).

/// Makes the enum of the sites, and under the simulator their names, from the one table below.
macro_rules! sites {
    ($($(#[$push:meta])* $site:ident, $name:literal;)+) => {
        /// The places that can be pushed.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Site {
            $($(#[$push])* $site,)+
        }

        impl Site {
            /// All of them.
            pub const ALL: [Self; [$(Self::$site),+].len()] = [$(Self::$site),+];
        }

        #[cfg(madsim)]
        impl Site {
            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$site => $name,)+
                }
            }
        }
    };
}

sites! {
    // The meta server.

    /// The next record begins a batch of its own.
    BatchClosed, "batch-of-one-record";
    /// A batch does not wait for what came with its first record.
    BatchAlone, "batch-at-once";
    /// The log switches to the next segment as soon as it is ready.
    SegmentSwitchEarly, "segment-switch-early";
    /// A checkpoint is made after a few records.
    CheckpointAtOnce, "checkpoint-at-once";
    /// The next segment is prepared later than it could be.
    SegmentPreparedLate, "segment-prepared-late";
    /// The log says that it will have room soon.
    LogRoomSoon, "log-has-room-soon";
    /// A mark follows the last batch at once.
    MarkAtOnce, "mark-follows-at-once";
    /// A page of a listing has two entries.
    ListPageOfTwo, "list-page-of-two";
    /// Two names or chunks are reclaimed at a time.
    ReclaimBatchOfTwo, "reclaim-batch-of-two";
    /// Members have hardly any time to make a chunk.
    AllocationHurried, "allocation-hurried";
    /// A copy of a chunk has hardly any time to be made.
    CopyHurried, "copy-hurried";

    // The chunkserver.

    /// The inventory is said one replica at a time.
    InventoryOfOne, "inventory-batch-of-one";
    /// One table is kept.
    TablesOfOne, "chunk-tables-of-one";
    /// A chunk at rest gives its table back at once.
    ParkedAtOnce, "chunk-parked-at-once";
    /// One piece in memory is too many.
    RoomFullEarly, "piece-room-full-early";
    /// A read is answered "busy".
    ReadBusy, "read-answered-busy";
    /// The pause before the meta server is dialed again is short.
    ServerRedialsAtOnce, "server-redials-at-once";

    // The client.

    /// The pause before something is tried again is short.
    RetryAtOnce, "client-retries-at-once";
    /// Pieces are of one block.
    PieceOfOneBlock, "client-piece-of-one-block";
    /// A sync in the background follows every piece that ends at a block edge.
    SyncEveryPiece, "client-syncs-every-piece";
    /// A link is given one message at a time.
    OneMessageUnsent, "client-one-message-unsent";
    /// A session has two changes unanswered, at most.
    SessionWindowOfTwo, "client-session-window-of-two";
    /// Places are asked for one chunk at a time.
    LocatePageOfOne, "client-locate-page-of-one";
    /// What is read is cut into single blocks.
    ReadPieceOfOneBlock, "client-read-of-one-block";
    /// One piece is read at a time.
    ReadAheadOfOne, "client-read-ahead-of-one";

    // The meta server, once more: a site's number is its place here, and what fires in a run is drawn by it.

    /// A scan of what a tree takes looks at two names or chunks in a slice, and gives three rows in a page.
    UsageSliceOfTwo, "usage-slice-of-two";
}

/// Stands in the simulator's binary, and in no other.
#[cfg(madsim)]
pub const MARK: &str = "KFS-SIM-ONLY buggify";

/// Sites that are on in a run, in thousandths.
#[cfg(madsim)]
const ON_PERMILLE: u64 = 250;

#[cfg(madsim)]
#[derive(Clone, Copy)]
struct Armed {
    seed: u64,
    permille: u64,
    /// Questions asked at each site: the answers at one do not depend on how often another was asked.
    asked: [u64; Site::ALL.len()],
}

#[cfg(madsim)]
std::thread_local! {
    static ARMED: core::cell::Cell<Armed> = const {
        core::cell::Cell::new(Armed { seed: 0, permille: 0, asked: [0; Site::ALL.len()] })
    };
}

/// From now on, on this thread: each site is on or off by the seed, and those that are on fire so many times
/// in a thousand. Zero: none does.
#[cfg(madsim)]
pub fn arm(seed: u64, permille: u64) {
    core::hint::black_box((MARK, Site::name as fn(Site) -> &'static str));
    let asked = [0; Site::ALL.len()];
    ARMED.with(|armed| {
        armed.set(Armed {
            seed,
            permille,
            asked,
        })
    });
}

/// Whether the site is on in the run of this thread.
#[cfg(madsim)]
#[must_use]
pub fn is_on(site: Site) -> bool {
    let Armed { seed, permille, .. } = ARMED.with(core::cell::Cell::get);
    permille > 0 && draw(seed, site, 0) % 1_000 < ON_PERMILLE
}

/// Whether this place is pushed now.
#[cfg(madsim)]
#[must_use]
pub fn is(site: Site) -> bool {
    if !is_on(site) {
        return false;
    }
    ARMED.with(|armed| {
        let mut now = armed.get();
        now.asked[site as usize] += 1;
        armed.set(now);
        draw(now.seed, site, now.asked[site as usize]) % 1_000 < now.permille
    })
}

/// Whether this place is pushed now: never, outside the simulator.
#[cfg(not(madsim))]
#[must_use]
pub const fn is(_site: Site) -> bool {
    false
}

/// A number of (seed, site, counter).
#[cfg(madsim)]
const fn draw(seed: u64, site: Site, counter: u64) -> u64 {
    mix(mix(mix(seed) ^ (site as u64 + 1)) ^ counter)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
#[cfg(madsim)]
const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
