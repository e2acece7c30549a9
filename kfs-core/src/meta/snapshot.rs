//! A copy of a data directory while its server runs: which files, in which order, and how much of the open segment.
//!
//! The order is what makes the copy a state that a loss of power could have left: identity, checkpoints, log. The
//! identity names an epoch that the log must reach, and a checkpoint has its name only when the log is durable up to
//! it: the log, looked at after them, reaches both. Read `docs/formats/oplog.md` for what changes and what does not.
//!
//! It says what is to be done and is told how it went; it does nothing itself, and knows nothing of time.
use super::checkpoint::format::{DIR as CHECKPOINT, checkpoint_name, checkpoint_seq};
use super::oplog::{
    Behind as BehindBatches, DIR as LOG, Mismatch, Proven, proven, segment_first, segment_name,
};
use crate::block::crc;
use crate::identity::{self, Identity, Owner};
use crate::ids::{ClusterId, Epoch, LogSeq};
use crate::machine::FileName;
use crate::planted::{self, Bug};
use crate::probe::{self, Probe};
use std::collections::VecDeque;

/// How often it is begun again because the server removed what was about to be copied.
pub const TRIES: u32 = 8;
/// How often the open segment is read at most.
pub const READS_MAX: u32 = 64;
/// After so many reads that all differ the farthest one is taken: a server that never rests writes behind each of
/// them, and not all of them were read wrong.
const READS_ENOUGH: u32 = 4;

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// This file is not changed any more under its name: it is given a second one in the copy, or copied as a whole.
    Link(FileName),
    /// The bytes of this file of the copy are read.
    ReadCopy(FileName),
    /// The names in this directory are listed; there are none in one that is missing.
    List(&'static str),
    /// The bytes of this file are read.
    Read(FileName),
    /// Of what was just read so many bytes are written under this name in the copy.
    Keep(FileName, usize),
    /// All that is in the copy is removed.
    Clear,
    /// Nothing: the copy is whole.
    Nothing(Taken),
}

/// How it went.
#[derive(Clone, Debug)]
pub enum Answer<'a> {
    /// It was done.
    Done,
    /// There is no file of this name any more.
    Gone,
    /// Names.
    Names(Vec<String>),
    /// What was read.
    Bytes(&'a [u8]),
}

/// A whole copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// The last record in it.
    pub record: LogSeq,
}

/// Why there is no copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// The identity file cannot be read.
    Identity(String),
    /// It is not a meta server's.
    Owner,
    /// There is no segment.
    NoLog,
    /// The open segment has no whole header, or is damaged.
    Segment(FileName, Mismatch),
    /// Files went so many times before they were copied, or the open segment was read so often and never made sense.
    Changes(u32),
}

/// A copy that is being made.
#[derive(Clone, Debug)]
pub struct Snapshot {
    tries: u32,
    step: Step,
    todo: VecDeque<Part>,
    cluster: ClusterId,
    /// The last epoch that the copied identity says was read.
    seen: Epoch,
    newest: LogSeq,
    segments: Vec<LogSeq>,
    record: LogSeq,
    read: OpenRead,
}

/// How the open segment was read so far, as something stood behind its last batch.
#[derive(Clone, Copy, Default, Debug)]
struct OpenRead {
    times: u32,
    /// Its sum, as it was read last.
    sum: Option<u32>,
    /// The farthest record found.
    last: LogSeq,
}

impl OpenRead {
    /// Notes a read; whether it says enough. Twice the same: nobody wrote meanwhile, and it was read right. Else what
    /// stands behind was being written, unless it was read wrong: then another read found more.
    fn is_enough(&mut self, bytes: &[u8], proven: &Proven) -> bool {
        let sum = crc(bytes);
        let same = self.sum.replace(sum) == Some(sum);
        self.times += 1;
        let farthest = proven.last >= self.last;
        self.last = self.last.max(proven.last);
        let moves = proven.behind == BehindBatches::Something && self.times >= READS_ENOUGH;
        same || (moves && farthest)
    }
}

/// What a copy is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Identity,
    Checkpoints,
    Log,
    /// A segment may be missed by a listing during which it gets its name; the next one shows it.
    LookAgain,
}

/// What was asked for.
#[derive(Clone, Debug)]
enum Step {
    /// Nothing yet.
    Begins,
    Identity,
    OfWhom,
    ListCheckpoints,
    ListLog,
    /// Files that do not change any more, from the one asked for on, and then whether the open segment is due.
    Links(VecDeque<LogSeq>, Behind),
    Open,
    Keep,
    LookAgain,
    Clear,
}

/// What comes behind the files that are linked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Behind {
    TheOpenSegment,
    TheNextPart,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl Snapshot {
    /// One that has not begun; its first answer is [`Answer::Done`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            tries: 0,
            step: Step::Begins,
            todo: VecDeque::new(),
            cluster: ClusterId(0),
            seen: Epoch(0),
            newest: LogSeq(0),
            segments: Vec::new(),
            record: LogSeq(0),
            read: OpenRead::default(),
        }
    }

    /// Takes how it went, and says what is to be done next. After an error, or [`Ask::Nothing`], it has ended.
    ///
    /// # Errors
    /// Why there is no copy.
    ///
    /// # Panics
    /// If the answer is none to what was asked for.
    pub fn go_on(&mut self, answer: Answer<'_>) -> Result<Ask, Wrong> {
        match (core::mem::replace(&mut self.step, Step::Begins), answer) {
            (Step::Begins | Step::Clear, Answer::Done) => {
                self.todo = parts().into();
                self.newest = LogSeq(0);
                self.read = OpenRead::default();
                Ok(self.next())
            }
            (Step::Identity, Answer::Done) => {
                self.step = Step::OfWhom;
                Ok(Ask::ReadCopy(FileName::new(identity::NAME)))
            }
            (Step::OfWhom, Answer::Bytes(bytes)) => {
                let identity =
                    Identity::decode(bytes).map_err(|error| Wrong::Identity(error.to_string()))?;
                if identity.owner != Owner::Meta {
                    return Err(Wrong::Owner);
                }
                self.cluster = identity.cluster;
                self.seen = identity.seen.0;
                Ok(self.next())
            }
            (Step::ListCheckpoints, Answer::Names(names)) => {
                let found = numbered(&names, checkpoint_seq);
                self.newest = found.last().copied().unwrap_or(LogSeq(0));
                // The newest first: it is what is needed, and what the server keeps the longest.
                let links = found.into_iter().rev().collect();
                Ok(self.link(links, Behind::TheNextPart))
            }
            (Step::ListLog, Answer::Names(names)) => {
                self.segments = numbered(&names, segment_first);
                let Some((_, closed)) = self.segments.split_last() else {
                    return Err(Wrong::NoLog);
                };
                // Later checkpoints came meanwhile, and what is behind the newest that was copied went.
                if self.segments[0] > self.newest.next() {
                    return self.again();
                }
                // The newest first, so that what was copied when an old one is gone has no gap.
                let links = closed.iter().rev().copied().collect();
                Ok(self.link(links, Behind::TheOpenSegment))
            }
            (Step::Links(mut links, behind), Answer::Done) => {
                links.pop_front();
                Ok(self.link(links, behind))
            }
            (Step::Links(mut links, behind), Answer::Gone) => match links.pop_front() {
                Some(of) if self.is_needed(of, behind) => self.again(),
                Some(_) if behind == Behind::TheOpenSegment => {
                    Ok(self.link(VecDeque::new(), behind))
                }
                Some(_) | None => Ok(self.link(links, behind)),
            },
            (Step::Open, Answer::Bytes(bytes)) => {
                let open = self.open();
                let proven = proven(bytes, self.newest, self.seen)
                    .map_err(|why| Wrong::Segment(open.clone(), why))?;
                if proven.behind != BehindBatches::Nothing && !planted::is(Bug::SnapshotReadOnce) {
                    // It was being written, or was read wrong: the next time it is another one.
                    if !self.read.is_enough(bytes, &proven) {
                        probe::hit(Probe::SnapshotReadAgain);
                        if self.read.times == READS_MAX {
                            return Err(Wrong::Changes(READS_MAX));
                        }
                        self.step = Step::Open;
                        return Ok(Ask::Read(open));
                    }
                    if let BehindBatches::Batch(at) = proven.behind {
                        let expected = format!("a batch at offset {at}");
                        let found = "something else, and a whole batch behind it";
                        return Err(Wrong::Segment(open, Mismatch::new(expected, found)));
                    }
                }
                self.record = proven.last;
                self.step = Step::Keep;
                Ok(Ask::Keep(open, proven.bytes))
            }
            (Step::Keep, Answer::Done) => Ok(self.next()),
            (Step::LookAgain, Answer::Names(names)) => {
                let open = self.segments.last().copied();
                let mut again = numbered(&names, segment_first);
                again.retain(|first| Some(*first) <= open);
                // What the server let go of meanwhile was copied before.
                if again.iter().all(|first| self.segments.contains(first)) {
                    return Ok(self.next());
                }
                self.again()
            }
            (Step::Identity | Step::Open, Answer::Gone) => self.again(),
            (step, answer) => panic!("{answer:?} is no answer to {step:?}"),
        }
    }

    fn next(&mut self) -> Ask {
        let Some(part) = self.todo.pop_front() else {
            let (cluster, record) = (self.cluster, self.record);
            return Ask::Nothing(Taken { cluster, record });
        };
        let (step, ask) = match part {
            Part::Identity => (Step::Identity, Ask::Link(FileName::new(identity::NAME))),
            Part::Checkpoints => (Step::ListCheckpoints, Ask::List(CHECKPOINT)),
            Part::Log => (Step::ListLog, Ask::List(LOG)),
            Part::LookAgain => (Step::LookAgain, Ask::List(LOG)),
        };
        self.step = step;
        ask
    }

    /// Whether a start from the newest checkpoint reads this one of what is being linked.
    fn is_needed(&self, of: LogSeq, behind: Behind) -> bool {
        match behind {
            Behind::TheNextPart => of == self.newest,
            Behind::TheOpenSegment => {
                let next = self.segments.iter().find(|first| **first > of);
                next.is_none_or(|next| *next > self.newest.next())
            }
        }
    }

    fn link(&mut self, links: VecDeque<LogSeq>, behind: Behind) -> Ask {
        match (links.front(), behind) {
            (Some(seq), _) => {
                let file = match behind {
                    Behind::TheNextPart => {
                        FileName::new(&format!("{CHECKPOINT}/{}", checkpoint_name(*seq)))
                    }
                    Behind::TheOpenSegment => segment(seq),
                };
                self.step = Step::Links(links, behind);
                Ask::Link(file)
            }
            (None, Behind::TheOpenSegment) => {
                self.step = Step::Open;
                Ask::Read(self.open())
            }
            (None, Behind::TheNextPart) => self.next(),
        }
    }

    fn open(&self) -> FileName {
        segment(self.segments.last().expect("a log has an open segment"))
    }

    /// Begins anew: the server removed something meanwhile, or began segments while they were listed.
    fn again(&mut self) -> Result<Ask, Wrong> {
        probe::hit(Probe::SnapshotBegunAgain);
        self.tries += 1;
        if self.tries == TRIES {
            return Err(Wrong::Changes(TRIES));
        }
        self.step = Step::Clear;
        Ok(Ask::Clear)
    }
}

/// In the order in which they are copied.
fn parts() -> [Part; 4] {
    use Part::{Checkpoints, Identity, Log, LookAgain};
    if planted::is(Bug::SnapshotIdentityLast) {
        return [Checkpoints, Log, LookAgain, Identity];
    }
    if planted::is(Bug::SnapshotLogFirst) {
        return [Identity, Log, LookAgain, Checkpoints];
    }
    [Identity, Checkpoints, Log, LookAgain]
}

fn segment(first: &LogSeq) -> FileName {
    FileName::new(&format!("{LOG}/{}", segment_name(*first)))
}

/// The numbers of those that have one, in their order.
fn numbered(names: &[String], number: fn(&str) -> Option<LogSeq>) -> Vec<LogSeq> {
    let mut found: Vec<LogSeq> = names.iter().filter_map(|name| number(name)).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::fill;

    /// What is asked for once a copy with checkpoint 43 finds the log begin with this record.
    fn with_a_log_from(first: u64) -> Ask {
        let mut snapshot = Snapshot::new();
        let mut tell = |answer| snapshot.go_on(answer).expect("it goes on");
        assert!(matches!(tell(Answer::Done), Ask::Link(_)));
        assert!(matches!(tell(Answer::Done), Ask::ReadCopy(_)));
        let identity = fill::identity().encode();
        assert_eq!(tell(Answer::Bytes(&identity)), Ask::List(CHECKPOINT));
        let names = vec![checkpoint_name(LogSeq(43))];
        assert!(matches!(tell(Answer::Names(names)), Ask::Link(_)));
        assert_eq!(tell(Answer::Done), Ask::List(LOG));
        tell(Answer::Names(vec![segment_name(LogSeq(first))]))
    }

    #[test]
    fn an_older_checkpoint_that_goes_meanwhile_is_not_missed() {
        let mut snapshot = Snapshot::new();
        let mut tell = |answer| snapshot.go_on(answer).expect("it goes on");
        tell(Answer::Done);
        tell(Answer::Done);
        let identity = fill::identity().encode();
        tell(Answer::Bytes(&identity));
        let name = |seq| checkpoint_name(LogSeq(seq));
        let link = |seq| Ask::Link(FileName::new(&format!("{CHECKPOINT}/{}", name(seq))));
        assert_eq!(tell(Answer::Names(vec![name(42), name(43)])), link(43));
        assert_eq!(tell(Answer::Done), link(42));
        assert_eq!(tell(Answer::Gone), Ask::List(LOG));
        let names = [30, 40, 44, 50].map(|first| segment_name(LogSeq(first)));
        let of = |seq| segment(&LogSeq(seq));
        assert_eq!(tell(Answer::Names(names.into())), Ask::Link(of(44)));
        let needed = snapshot.clone().go_on(Answer::Gone);
        assert_eq!(
            needed,
            Ok(Ask::Clear),
            "what is behind the newest is missed"
        );
        let mut tell = |answer| snapshot.go_on(answer).expect("it goes on");
        assert_eq!(tell(Answer::Done), Ask::Link(of(40)));
        assert_eq!(tell(Answer::Gone), Ask::Read(of(50)), "there is no gap");
    }

    #[test]
    fn an_open_segment_whose_end_is_not_whole_is_read_until_it_is_the_same_twice() {
        let mut log = fill::Log::new(fill::CLUSTER);
        for logged in fill::Records::new(40_000, fill::Order::Sequence).take(40_000) {
            assert!(log.push(logged.by, logged.record).is_none());
        }
        let (_, whole) = log.finish();
        let copy = |reads: &[&[u8]]| {
            let mut snapshot = Snapshot::new();
            let mut tell = |answer| snapshot.go_on(answer);
            tell(Answer::Done).unwrap();
            tell(Answer::Done).unwrap();
            let identity = fill::identity().encode();
            tell(Answer::Bytes(&identity)).unwrap();
            tell(Answer::Names(vec![])).unwrap();
            let names = vec![segment_name(LogSeq(1))];
            assert!(matches!(tell(Answer::Names(names)), Ok(Ask::Read(_))));
            let mut said = Vec::new();
            for read in reads {
                said.push(tell(Answer::Bytes(read)));
            }
            said
        };
        let kept = |asked: &Result<Ask, Wrong>| match asked {
            Ok(Ask::Keep(_, bytes)) => Some(*bytes),
            _ => None,
        };
        let all = kept(&copy(&[&whole])[0]).unwrap();
        let mut early = whole.clone();
        early[5_000] ^= 1;
        let mut late = whole.clone();
        late.extend([7; 100]);
        let said = copy(&[&early, &whole]);
        assert!(
            matches!(said[0], Ok(Ask::Read(_))),
            "it may have been read wrong"
        );
        assert_eq!(kept(&said[1]), Some(all));
        let damaged = copy(&[&early, &early]).pop();
        assert!(
            matches!(damaged, Some(Err(Wrong::Segment(..)))),
            "it is so on the disk"
        );
        let torn = copy(&[&late, &late]).pop().unwrap();
        assert_eq!(kept(&torn), Some(all), "a write that was cut is left out");
        let many = |of: &[u8], at: usize, times: u32| -> Vec<Vec<u8>> {
            let nth = |nth: u32| {
                let mut read = of.to_vec();
                read[at] = u8::try_from(nth).unwrap();
                read
            };
            (1..=times).map(nth).collect()
        };
        let said =
            |reads: &[Vec<u8>]| copy(&reads.iter().map(|read| &read[..]).collect::<Vec<_>>());
        let never = said(&many(&early, 5_001, READS_MAX)).pop();
        assert!(
            matches!(never, Some(Err(Wrong::Changes(READS_MAX)))),
            "what is damaged before its end never makes sense"
        );
        let busy = many(&late, whole.len() + 9, 4);
        let kept_of = said(&busy).iter().map(kept).collect::<Vec<_>>();
        assert_eq!(
            kept_of,
            [None, None, None, Some(all)],
            "a server that never rests is copied too"
        );
        let short = &early[..whole.len() / 2];
        let mut reads = busy[..3].to_vec();
        reads.push(short.to_vec());
        let last = said(&reads).pop().unwrap();
        assert!(
            matches!(last, Ok(Ask::Read(_))),
            "one that was read wrong is not taken for the farthest"
        );
    }

    #[test]
    fn a_log_that_went_up_to_a_later_checkpoint_begins_the_copy_again() {
        assert_eq!(with_a_log_from(45), Ask::Clear);
        let open = FileName::new(&format!("{LOG}/{}", segment_name(LogSeq(44))));
        assert_eq!(with_a_log_from(44), Ask::Read(open));
    }
}
