//! O11: counters say what happened: what machines counted, against what was done to them.
//!
//! Plain numbers of one process each: counters begin at zero with a process, so who injects counts apart for
//! each life of a server. When is a counter equal to what was injected, and when only at least or at most?
//!
//! | counter | injected | relation |
//! | --- | --- | --- |
//! | `pieces_bad` | bodies of `WritePiece`, `ChainPiece` changed on the way past the frame's own check, and received | at most: one that is refused for something else is not looked at; one that is taken and acked is seen by itself |
//! | `blocks_bad` | blocks that were bad when the disk was read for a range | equal, if who injects counts reads of them; else at least one if one was read, and at most zero if none was injected |
//! | `syncs` | syncs that this replica told the server before it are made | at least: the head tells its client |
//! | `pieces_written` | pieces that it told clients are written | at least: others of the chain tell no client |
//! | `pieces_written`, `bytes_written` | pieces that came to it as they were sent, and were not refused | at most: not those that are written in a chain that broke meanwhile |
//! | `reads`, `bytes_read` | answers with bytes that it sent | equal |
//! | `files_foreign` | files of strange names put into its directories before the start | equal |
//! | anything, in a run without faults | nothing | equal: zero |
//!
//! It never reads a counter by itself.
use super::Violation;
use kfs_core::chunk::ChunkStatus;

/// A counter and what it is to be compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    /// Which.
    pub name: &'static str,
    /// What the machine says.
    pub counted: u64,
    /// What was done to it.
    pub injected: u64,
    /// How the two must stand.
    pub relation: Relation,
}

/// How a counter stands to what was injected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// Each is counted once.
    Equal,
    /// Each is counted, and something may be counted that nobody saw.
    AtLeast,
    /// Nothing is counted that was not injected; what was never met is not counted.
    AtMost,
    /// Nothing is counted unless something was injected; one may be counted often.
    OnlyIf,
}

/// What was done to one process of a chunkserver, and what others saw of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Injected {
    /// Bodies of pieces that were changed and reached it.
    pub pieces_changed: u64,
    /// Blocks on its disk that are bad, or reads that were made to give something else.
    pub blocks_hurt: u64,
    /// Files of strange names in its directories at its start.
    pub files_foreign: u64,
    /// Answers with bytes that it sent to readers.
    pub ranges_sent: u64,
    /// Bytes of those answers.
    pub bytes_sent: u64,
    /// Pieces that came to it as they were sent, and were not refused.
    pub pieces_whole: u64,
    /// Bytes of those pieces.
    pub bytes_whole: u64,
    /// Pieces that it told clients are written.
    pub pieces_acked: u64,
    /// Syncs that it told the server before it are made.
    pub syncs_passed: u64,
}

/// Compares counters.
///
/// # Errors
/// The first that does not stand as it must.
pub fn check(whose: &str, counters: &[Counter]) -> Result<(), Violation> {
    let wrong = counters.iter().find(|counter| {
        let Counter {
            counted, injected, ..
        } = **counter;
        match counter.relation {
            Relation::Equal => counted != injected,
            Relation::AtLeast => counted < injected,
            Relation::AtMost => counted > injected,
            Relation::OnlyIf => counted > 0 && injected == 0,
        }
    });
    let Some(Counter {
        name,
        counted,
        injected,
        relation,
    }) = wrong
    else {
        return Ok(());
    };
    Err(Violation::new(
        "O11",
        "F",
        format!("{whose}: {name} says {counted}; {injected} were injected, due is {relation:?}"),
    ))
}

/// The counters of a chunkserver's process.
#[must_use]
pub fn of_chunkserver(status: &ChunkStatus, injected: Injected) -> Vec<Counter> {
    let counter = |name, counted, injected, relation| Counter {
        name,
        counted,
        injected,
        relation,
    };
    vec![
        counter(
            "pieces_bad",
            status.pieces_bad,
            injected.pieces_changed,
            Relation::AtMost,
        ),
        counter(
            "blocks_bad",
            status.blocks_bad,
            injected.blocks_hurt,
            Relation::OnlyIf,
        ),
        counter(
            "files_foreign",
            status.files_foreign,
            injected.files_foreign,
            Relation::Equal,
        ),
        counter("reads", status.reads, injected.ranges_sent, Relation::Equal),
        counter(
            "bytes_read",
            status.bytes_read,
            injected.bytes_sent,
            Relation::Equal,
        ),
        counter(
            "pieces_written",
            status.pieces_written,
            injected.pieces_whole,
            Relation::AtMost,
        ),
        counter(
            "bytes_written",
            status.bytes_written,
            injected.bytes_whole,
            Relation::AtMost,
        ),
        counter(
            "pieces_written",
            status.pieces_written,
            injected.pieces_acked,
            Relation::AtLeast,
        ),
        counter(
            "syncs",
            status.syncs,
            injected.syncs_passed,
            Relation::AtLeast,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(counted: u64, injected: u64, relation: Relation) -> bool {
        let counter = Counter {
            name: "blocks_bad",
            counted,
            injected,
            relation,
        };
        check("server 1", &[counter]).is_ok()
    }

    #[test]
    fn a_fault_that_is_not_counted_and_a_count_of_no_fault_are_seen() {
        assert!(verdict(2, 2, Relation::Equal));
        assert!(!verdict(1, 2, Relation::Equal) && !verdict(3, 2, Relation::Equal));
        assert!(verdict(3, 2, Relation::AtLeast) && !verdict(1, 2, Relation::AtLeast));
        assert!(verdict(1, 2, Relation::AtMost) && !verdict(3, 2, Relation::AtMost));
        assert!(verdict(9, 1, Relation::OnlyIf) && verdict(0, 1, Relation::OnlyIf));
        assert!(!verdict(1, 0, Relation::OnlyIf));
    }

    #[test]
    fn a_piece_that_is_counted_as_bad_and_was_not_is_seen() {
        let changed = |pieces_changed| Injected {
            pieces_changed,
            ..Injected::default()
        };
        let counts = |pieces_bad| ChunkStatus {
            pieces_bad,
            ..ChunkStatus::default()
        };
        let verdict = |bad, made| check("server 1", &of_chunkserver(&counts(bad), changed(made)));
        // One that is refused for something else is not looked at.
        assert!(verdict(1, 1).is_ok() && verdict(0, 1).is_ok());
        let seen = verdict(2, 1).unwrap_err();
        assert!(seen.what.contains("pieces_bad says 2"), "{seen}");
        assert!(verdict(1, 0).is_err(), "nothing was injected");
    }
}
