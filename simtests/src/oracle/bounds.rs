//! O10: bounds: what machines hold in memory stays within [`Limits`], whatever is asked of them.
//!
//! To be called after every event, or every so many: it costs as much as there are links. The slack that is
//! allowed is what the machines document and no more: a room or a link is full when it is over its limit, so
//! it may be over it by the last piece; and a link that is paused brings what was on its way ([`OnTheirWay`]).
//! The head of a chain refuses what would be too much, so its bound depends on no driver.
use super::Violation;
use kfs_core::chunk;
use kfs_core::chunk::MAKES_MAX;
use kfs_core::chunk::copy::{COPIES_MAX, RANGES_MAX};
use kfs_core::chunk::header::REDO_RUNS_MAX;
use kfs_core::chunk::seal::SEALS_MAX;
use kfs_core::client::{self, PIECE_COST};
use kfs_core::limits::{Geometry, Limits, SESSION_WINDOW_MAX, USAGE_SCANS_MAX};
use kfs_core::meta;
use kfs_core::meta::copying::WORK_MAX as REPLICATION_WORK_MAX;
use kfs_core::meta::rechain::RECHAINS_MAX;
use kfs_core::meta::sealing::WORK_MAX as SEALING_WORK_MAX;

/// Bytes of a message besides its body: a frame's header and a head with sums of a piece's blocks.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Disk operations of a chunkserver that are none of a piece, a read or a replica: the start, the identity,
/// space, and the directory.
const JOBS_OF_ITS_OWN: usize = 64;

/// Messages that a driver may have read from a link and not handed over yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OnTheirWay(pub usize);

impl OnTheirWay {
    /// The queue of the loop that the daemons use (`EVENTS` in `kfs-drive`), which one link may fill alone, and
    /// what the reader of the link has in hand.
    pub const DRIVE: Self = Self(32 + 1);
}

/// How many links, sessions and open files there can be at most: what a run has of clients and servers.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    /// Clients that ever lived within one session's idle time, at most.
    pub sessions: usize,
    /// Links that can be up to one server at once, those of processes that died and are not missed yet included.
    pub links: usize,
    /// Calls that one client makes at once.
    pub calls: usize,
}

/// Names what is too much.
struct Judge<'a> {
    whose: &'a str,
}

impl Judge<'_> {
    fn most(&self, what: &str, found: usize, most: usize) -> Result<(), Violation> {
        if found <= most {
            return Ok(());
        }
        let whose = self.whose;
        Err(Violation::new(
            "O10",
            "bounds",
            format!("{whose}: {what}: {found}; at most {most} are allowed"),
        ))
    }
}

/// Checks a chunkserver.
///
/// # Errors
/// The first thing of which there is too much.
pub fn chunk(
    whose: &str,
    bounds: &chunk::Bounds,
    limits: &Limits,
    geometry: Geometry,
    on_their_way: OnTheirWay,
) -> Result<(), Violation> {
    let judge = Judge { whose };
    let piece = geometry.piece_bytes as usize;
    let mut held = 0;
    for room in &bounds.rooms {
        let what = format!("bytes of pieces at position {}", room.position);
        let most = limits.piece_bytes_max(geometry, room.position, room.links, on_their_way.0);
        judge.most(&what, room.bytes, most)?;
        held = held.max(room.bytes);
    }
    let mut reads = 0;
    for link in &bounds.links {
        reads += link.reads;
        judge.most("reads of one link", link.reads, limits.link_requests)?;
        // Of answers that carry no bytes there is one for each message that came.
        let small = link.messages * HEAD_BYTES_MAX;
        // Pieces on their way to the next server are in memory once.
        let most = (limits.link_unsent_bytes + piece).max(held) + small;
        judge.most("bytes on their way out on one link", link.bytes, most)?;
    }
    judge.most(
        "reads not answered",
        bounds.reads,
        bounds.links.len() * limits.link_requests,
    )?;
    // Reads of links that are gone end at once, with nothing left of them.
    judge.most(
        "reads not answered, beside those of its links",
        bounds.reads,
        reads,
    )?;
    judge.most(
        "tables of replicas at rest",
        bounds.tables,
        limits.chunk_tables.max(1),
    )?;
    // Reads go on at the disk when their readers have gone; those count as well.
    judge.most(
        "reads at the disk",
        bounds.reads_at_disk,
        limits.disk_reads_max(geometry),
    )?;
    judge.most(
        "reads at the disk that nobody waits for",
        bounds.reads_abandoned,
        bounds.reads_at_disk,
    )?;
    judge.most("reads of the scrub", bounds.reads_of_scrub, 1)?;
    judge.most("copies being made", bounds.copies, COPIES_MAX)?;
    // Ranges are written in runs of blocks that are no holes; and a step besides.
    let runs = RANGES_MAX * (piece / geometry.block_bytes as usize + 1) + 1;
    judge.most(
        "disk operations for copies",
        bounds.copy_jobs,
        bounds.copies * runs,
    )?;
    judge.most("replicas being made", bounds.makes, MAKES_MAX)?;
    // Those that wait for a sync, and those of syncs at work: members may have several.
    let waiting = 2 * REDO_RUNS_MAX * bounds.writing;
    judge.most("blocks written over", bounds.waiting, waiting)?;
    judge.most("replicas being sealed", bounds.seals, SEALS_MAX)?;
    // One write each piece; one sync and one page in its place each replica; one header each parked one.
    let most = bounds.pieces
        + bounds.reads_at_disk
        + bounds.reads_of_scrub
        + 2 * bounds.writing
        + bounds.parked
        + bounds.makes
        + bounds.seals
        + bounds.moving
        + bounds.copy_jobs
        + JOBS_OF_ITS_OWN;
    judge.most("disk operations in flight", bounds.jobs, most)
}

/// Checks the meta server.
///
/// # Errors
/// The first thing of which there is too much.
pub fn meta(whose: &str, bounds: &meta::Bounds, population: Population) -> Result<(), Violation> {
    let judge = Judge { whose };
    let window = usize::try_from(SESSION_WINDOW_MAX).expect("a small number");
    judge.most(
        "results remembered for one session",
        bounds.results_most,
        window,
    )?;
    judge.most(
        "refusals remembered for one session",
        bounds.answers_most,
        window,
    )?;
    judge.most("sessions", bounds.sessions, population.sessions)?;
    judge.most("links", bounds.links, population.links)?;
    // One who works has one file open, and may have closed one that is not released yet.
    judge.most(
        "files held open on one link",
        bounds.holds_most,
        2 * population.calls,
    )?;
    judge.most(
        "copies that are made or wait",
        bounds.replication,
        REPLICATION_WORK_MAX,
    )?;
    judge.most(
        "chunks at rest that are asked about",
        bounds.sealing,
        SEALING_WORK_MAX,
    )?;
    judge.most("chunks rechained", bounds.rechains, RECHAINS_MAX)?;
    judge.most("scans of what trees take", bounds.usages, USAGE_SCANS_MAX)?;
    judge.most(
        "chunks being made",
        bounds.allocations,
        population.sessions * window,
    )?;
    // A client has its calls in flight, each asked at most once on each link; a server has few.
    let most = bounds.links.max(1) * (population.calls + window);
    judge.most("outputs that wait for the log", bounds.waiting, most)
}

/// Checks a client.
///
/// # Errors
/// The first thing of which there is too much.
pub fn client(
    whose: &str,
    bounds: &client::Bounds,
    limits: &Limits,
    geometry: Geometry,
) -> Result<(), Violation> {
    let judge = Judge { whose };
    let piece = geometry.piece_bytes as usize;
    for window in &bounds.writers {
        // A window smaller than a piece takes one all the same; a hole's end is written besides.
        let most = limits.write_window_bytes.max(piece + PIECE_COST)
            + (1 + PIECE_COST) * (window.chunks + 1);
        judge.most("bytes that no sync covers in one file", window.held, most)?;
    }
    for bytes in &bounds.links {
        let most = limits.link_unsent_bytes + piece + HEAD_BYTES_MAX;
        judge.most("bytes on their way out on one link", *bytes, most)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::meta::tests::GEOMETRY;

    const LIMITS: Limits = Limits {
        piece_buffer_bytes: 1_000,
        link_unsent_bytes: 500,
        link_requests: 4,
        chunk_tables: 2,
        write_window_bytes: 600,
        ..Limits::REAL
    };

    fn full() -> chunk::Bounds {
        chunk::Bounds {
            rooms: vec![chunk::Room {
                position: 0,
                bytes: 1_000 + 2 * 128,
                links: 1,
            }],
            links: vec![chunk::Load {
                reads: 4,
                messages: 0,
                bytes: 500 + 128,
            }],
            pieces: 3,
            tables: 2,
            tables_loading: 1,
            reads: 4,
            reads_abandoned: 1,
            reads_at_disk: 7,
            reads_of_scrub: 1,
            writing: 1,
            parked: 0,
            waiting: 3,
            makes: 2,
            seals: 1,
            moving: 0,
            copies: 1,
            copy_jobs: 3,
            jobs: 3 + 7 + 1 + 2 + 2 + 1 + 3 + JOBS_OF_ITS_OWN,
        }
    }

    #[test]
    fn a_chunkserver_that_is_full_is_fine_and_one_more_of_anything_is_not() {
        let judge =
            |bounds: &chunk::Bounds| chunk("server 1", bounds, &LIMITS, GEOMETRY, OnTheirWay(1));
        judge(&full()).unwrap();
        type More = (&'static str, fn(&mut chunk::Bounds));
        let more: [More; 12] = [
            ("position 0", |bounds| bounds.rooms[0].bytes += 1),
            ("reads of one link", |bounds| bounds.links[0].reads += 1),
            ("on their way out", |bounds| bounds.links[0].bytes += 10_000),
            ("tables of replicas", |bounds| bounds.tables += 1),
            ("reads not answered", |bounds| bounds.reads += 1),
            ("reads at the disk", |bounds| bounds.reads_at_disk += 1),
            ("nobody waits", |bounds| bounds.reads_abandoned = 8),
            ("reads of the scrub", |bounds| bounds.reads_of_scrub += 1),
            ("replicas being made", |bounds| bounds.makes = 65),
            ("blocks written over", |bounds| bounds.waiting = 1_000_000),
            ("replicas being sealed", |bounds| bounds.seals = 65),
            ("disk operations", |bounds| bounds.jobs += 1),
        ];
        for (what, more) in more {
            let mut bounds = full();
            more(&mut bounds);
            let seen = judge(&bounds).unwrap_err();
            assert!(seen.what.contains(what), "{seen}");
        }
    }

    #[test]
    fn the_head_of_a_chain_holds_no_more_whatever_the_driver_brings() {
        let judge = |position, bytes| {
            let bounds = chunk::Bounds {
                rooms: vec![chunk::Room {
                    position,
                    bytes,
                    links: 1,
                }],
                ..chunk::Bounds::default()
            };
            chunk("server 1", &bounds, &LIMITS, GEOMETRY, OnTheirWay::DRIVE)
        };
        let piece = 128;
        judge(0, 2_000 + piece).unwrap();
        judge(0, 2_000 + piece + 1).unwrap_err();
        judge(1, 1_000 + piece * 34).unwrap();
        judge(1, 1_000 + piece * 34 + 1).unwrap_err();
    }

    #[test]
    fn a_meta_server_that_remembers_more_than_a_window_is_seen() {
        let population = Population {
            sessions: 2,
            links: 3,
            calls: 10,
        };
        let full = meta::Bounds {
            links: 3,
            waiting: 3 * 266,
            sessions: 2,
            results_most: 256,
            answers_most: 256,
            allocations: 512,
            rechains: RECHAINS_MAX,
            replication: REPLICATION_WORK_MAX,
            sealing: SEALING_WORK_MAX,
            holds: 60,
            holds_most: 20,
            usages: USAGE_SCANS_MAX,
        };
        let judge = |bounds: &meta::Bounds| meta("meta", bounds, population);
        judge(&full).unwrap();
        let more: [fn(&mut meta::Bounds); 11] = [
            |bounds| bounds.usages += 1,
            |bounds| bounds.replication += 1,
            |bounds| bounds.sealing += 1,
            |bounds| bounds.links += 1,
            |bounds| bounds.waiting += 1,
            |bounds| bounds.sessions += 1,
            |bounds| bounds.results_most += 1,
            |bounds| bounds.answers_most += 1,
            |bounds| bounds.allocations += 1,
            |bounds| bounds.rechains += 1,
            |bounds| bounds.holds_most += 1,
        ];
        for more in more {
            let mut bounds = full;
            more(&mut bounds);
            assert!(judge(&bounds).is_err(), "{bounds:?}");
        }
    }

    #[test]
    fn a_client_over_its_window_is_seen() {
        let bounds = |held, link| client::Bounds {
            writers: vec![client::Window { held, chunks: 0 }],
            links: vec![link],
        };
        let judge = |bounds: &client::Bounds| client("client 1", bounds, &LIMITS, GEOMETRY);
        judge(&bounds(600 + 257, 500 + 128)).unwrap();
        assert!(judge(&bounds(600 + 258, 0)).is_err());
        assert!(judge(&bounds(0, 10_000)).is_err());
    }
}
