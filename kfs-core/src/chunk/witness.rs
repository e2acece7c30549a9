//! What this server has seen of the log: the meta server's epoch and incarnation, and how far its log was durable
//! when it said so last. Each hello says it; a meta server that does not have it knows that its log was set back.
//!
//! Epoch and incarnation are in the identity file before they are accepted. How far the log was durable is noted
//! there now and then, and with whatever else is written. Lazily is enough: a process that lives says what it has
//! heard, whatever is on its disk, and what was lost behind the last note is still proved by every chunk of it,
//! whose header names an incarnation or an id that the log does not have, and by every later epoch. Only changes of
//! names since the last note, in an epoch that the log still has, are lost unseen, if every chunkserver restarts too.
use super::Chunk;
use super::recovery::{Leftover, Start};
use crate::identity;
use crate::ids::LogSeq;
use crate::machine::{DiskOp, FileName};
use crate::probe::{self, Probe};
use crate::time::Instant;
use core::time::Duration;

/// Heartbeats between two notes.
const EVERY_BEATS: u32 = 20;

/// What the identity file has of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Note {
    on_disk: LogSeq,
    /// In the replacement of the identity file that is being made.
    writing: LogSeq,
    at: Option<Instant>,
    why: Why,
}

/// Why the identity file is being replaced.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Why {
    /// Something else in it must be durable.
    #[default]
    Needed,
    /// For the note.
    Note,
    /// It is not: there was no room for a note, and what was begun is removed.
    TakenBack,
}

impl Note {
    /// The identity file is being replaced by one that says this.
    pub(super) const fn begun(&mut self, seq: LogSeq) {
        self.writing = seq;
    }
    /// It was replaced, or left as it is.
    pub(super) fn ended(&mut self, now: Instant) {
        if self.why != Why::TakenBack {
            self.on_disk = self.writing;
        }
        (self.at, self.why) = (Some(now), Why::Needed);
    }
    /// Whether what is being written could as well wait.
    pub(super) fn may_wait(&self) -> bool {
        self.why == Why::Note
    }
    /// Whether what was begun is being removed.
    pub(super) fn is_taken_back(&self) -> bool {
        self.why == Why::TakenBack
    }
}

impl Chunk {
    /// The meta server whose term this is says how far its log is durable.
    pub(super) fn log_is_durable(&mut self, seq: LogSeq) {
        self.identity.seen_seq = self.identity.seen_seq.max(seq);
    }

    /// Notes it, if that is due and nothing else is being done to the identity file.
    pub(super) fn note_seen(&mut self) {
        let every = EVERY_BEATS * self.timing.heartbeat.max(Duration::from_millis(1));
        let rests = self.identity_steps.is_empty() && matches!(self.start, Start::Done);
        let due = self.note.at.is_none_or(|at| at + every <= self.now.mono);
        if rests && due && self.note.on_disk != self.identity.seen_seq {
            probe::hit(Probe::SeenNoted);
            self.note.why = Why::Note;
            self.replace_identity(Leftover::None, Vec::new());
        }
    }

    /// There is no room for a note: the identity file stays as it is, and what was begun of a new one goes.
    pub(super) fn take_note_back(&mut self) {
        self.note.why = Why::TakenBack;
        self.identity_steps.clear();
        self.identity_steps.push_back(DiskOp::Remove {
            file: FileName::new(identity::NAME_NEW),
        });
        self.identity_step();
    }
}
