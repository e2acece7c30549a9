//! O1: the replies, replayed in the order of their `LogSeq` on the reference namespace, are what it gives; and
//! that order respects real time.
use super::{Tick, Verdicts, Violation};
use crate::model::{Change, Effect, Expected, Model, Node};
use kfs_core::ids::{FileId, LogSeq};
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, Entry, Kind, Usage};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One operation of one client on the namespace, from its call to its answer.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Whose.
    pub client: u32,
    /// What.
    pub asked: Asked,
    /// When it was called.
    pub called: Tick,
    /// The newest state that any client had heard of when it was called.
    pub floor: LogSeq,
    /// What came of it; `None` while nothing did.
    pub answer: Option<Answer>,
}

/// What a client asked of the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To change it.
    Change(Change),
    /// The attributes of what is at this path; opening it to read asks the same.
    Stat(Vec<u8>),
    /// A page of a directory, names after this one.
    List(Vec<u8>, Vec<u8>),
    /// What is at this path, and all below it, takes.
    Usage(Vec<u8>),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |path: &[u8]| format!("/{}", String::from_utf8_lossy(path));
        match self {
            Self::Stat(path) => write!(f, "stat {}", text(path)),
            Self::Usage(path) => write!(f, "usage of {}", text(path)),
            Self::List(path, after) => {
                write!(
                    f,
                    "list {} after '{}'",
                    text(path),
                    String::from_utf8_lossy(after)
                )
            }
            Self::Change(Change::Mkdir { path, parents }) => {
                write!(f, "mkdir {} ({parents:?})", text(path))
            }
            Self::Change(Change::Create { path, .. }) => write!(f, "create {}", text(path)),
            Self::Change(Change::Rename { from, to, mode }) => {
                write!(f, "rename {} to {} ({mode:?})", text(from), text(to))
            }
            Self::Change(Change::Remove { path }) => write!(f, "remove {}", text(path)),
            Self::Change(Change::Rmdir { path }) => write!(f, "rmdir {}", text(path)),
            Self::Change(Change::SetAttributes { path, to }) => {
                write!(f, "set attributes {} {to:?}", text(path))
            }
            Self::Change(Change::RemoveTree { path }) => {
                write!(f, "remove all of {}", text(path))
            }
        }
    }
}

/// What a client was told.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When.
    pub told: Tick,
    /// The state it was made from, if the meta server made it.
    pub seq: Option<LogSeq>,
    /// What.
    pub outcome: Outcome,
}

/// See [`Answer`].
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A change was made, of what has this id, if it was said.
    Changed(Option<FileId>),
    /// The attributes.
    Attrs(Attrs),
    /// A page, and whether it is the last.
    Entries(Vec<Entry>, bool),
    /// What a tree takes, all of it.
    Usage(Usage),
    /// It was refused, or failed.
    Failed(Status),
}

/// How much was checked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Checked {
    /// Replies that had to be as they were.
    pub certain: u64,
    /// Replies of which nothing could be said.
    pub uncertain: u64,
}

/// Whether a status says that the meta server decided against it, rather than that something got in the way.
pub(crate) const fn is_decision(status: Status) -> bool {
    matches!(
        status,
        Status::NotFound
            | Status::Exists
            | Status::NotADirectory
            | Status::IsADirectory
            | Status::NotEmpty
            | Status::BadName
            | Status::BadRequest
    )
}

/// Whether nothing was changed for certain, though the namespace is not the reason.
fn is_certain_failure(status: Status) -> bool {
    matches!(
        status,
        Status::Busy | Status::ReadOnly | Status::NoServers | Status::NoRoom
    )
}

/// Checks all operations of a run.
///
/// # Errors
/// The first reply, in the order of the log, that is not what the namespace gives.
pub fn check(
    operations: &[Operation],
    sessions_lost: BTreeMap<u32, LogSeq>,
) -> Result<Checked, Violation> {
    replay(operations, sessions_lost).checked
}

/// What came of a replay.
#[derive(Debug)]
pub struct Replayed {
    /// As [`check`] gives it.
    pub checked: Result<Checked, Violation>,
    /// The reference namespace as all operations leave it, if what was wrong is not a change: an answer that is
    /// wrong changes nothing.
    pub reference: Option<Model>,
}

/// As [`check`]; also gives the reference namespace as all of them leave it.
#[must_use]
pub fn replay(operations: &[Operation], sessions_lost: BTreeMap<u32, LogSeq>) -> Replayed {
    let mut verdicts = Verdicts::default();
    verdicts.hear(respects_real_time(operations));
    // By place in the log; at each place what was changed, then what was seen, then what may happen from now on.
    let mut doubts: BTreeMap<LogSeq, Vec<&Operation>> = BTreeMap::new();
    let mut answers: BTreeMap<LogSeq, Vec<(&Operation, &Outcome)>> = BTreeMap::new();
    for operation in operations {
        let answer = operation.answer.as_ref();
        match (&operation.asked, answer.map(|a| (a.seq, &a.outcome))) {
            (Asked::Change(_), Some((Some(seq), outcome @ Outcome::Changed(_)))) => {
                answers.entry(seq).or_default().push((operation, outcome));
            }
            (_, Some((Some(seq), outcome @ Outcome::Failed(status)))) if is_decision(*status) => {
                answers.entry(seq).or_default().push((operation, outcome));
            }
            (Asked::Change(_), Some((Some(_), Outcome::Failed(status))))
                if is_certain_failure(*status) => {}
            (Asked::Change(_), _) => doubts.entry(operation.floor).or_default().push(operation),
            (
                _,
                Some((
                    Some(seq),
                    outcome @ (Outcome::Attrs(_) | Outcome::Entries(..) | Outcome::Usage(_)),
                )),
            ) => {
                answers.entry(seq).or_default().push((operation, outcome));
            }
            (Asked::Stat(_) | Asked::List(..) | Asked::Usage(_), _) => {}
        }
    }
    let mut replay = Replay {
        model: Model::new(sessions_lost),
        checked: Checked::default(),
    };
    let places: BTreeSet<LogSeq> = doubts.keys().chain(answers.keys()).copied().collect();
    let mut open: Vec<&Change> = Vec::new();
    for seq in places {
        replay.model.set_at(seq);
        if let Some(answers) = answers.get(&seq) {
            if verdicts.hear(replay.changes(seq, answers)).is_none() {
                return Replayed {
                    checked: verdicts.end().map(|()| replay.checked),
                    reference: None,
                };
            }
            for (operation, outcome) in answers {
                verdicts.hear(replay.sees(seq, operation, outcome));
            }
        }
        // These were called in this state, and take effect later, if they do, in whatever state that is.
        for operation in doubts.get(&seq).into_iter().flatten() {
            if let Asked::Change(change) = &operation.asked {
                open.push(change);
            }
        }
        for change in &open {
            replay.model.doubt(change);
        }
    }
    Replayed {
        checked: verdicts.end().map(|()| replay.checked),
        reference: Some(replay.model),
    }
}

/// Who was called after another was told sees no older state; a change sees a newer one.
fn respects_real_time(operations: &[Operation]) -> Result<(), Violation> {
    let mut told: Vec<(Tick, LogSeq, &Operation)> = operations
        .iter()
        .filter_map(|operation| {
            let answer = operation.answer.as_ref()?;
            Some((answer.told, answer.seq?, operation))
        })
        .collect();
    told.sort_by_key(|(tick, ..)| *tick);
    let mut called: Vec<&(Tick, LogSeq, &Operation)> = told.iter().collect();
    called.sort_by_key(|(_, _, operation)| operation.called);
    let mut earlier = told.iter().peekable();
    let mut newest: Option<&(Tick, LogSeq, &Operation)> = None;
    for later in called {
        while let Some(one) = earlier.next_if(|(told, ..)| *told < later.2.called) {
            if newest.is_none_or(|best| best.1 < one.1) {
                newest = Some(one);
            }
        }
        if let Some(before) = newest.filter(|before| before.1 > later.1) {
            return Err(Violation::new(
                "O1",
                "N1",
                format!(
                    "client {} was told of '{}' in state {}; called after that, client {}'s '{}' was answered from state {}",
                    before.2.client,
                    before.2.asked,
                    before.1,
                    later.2.client,
                    later.2.asked,
                    later.1
                ),
            ));
        }
    }
    Ok(())
}

/// A change that succeeded, and what it made.
type Changed<'a> = (&'a Operation, &'a Change, Option<FileId>);

struct Replay {
    model: Model,
    checked: Checked,
}

impl Replay {
    /// One of these made the record, or none did; all others found it so already.
    fn changes(
        &mut self,
        seq: LogSeq,
        answers: &[(&Operation, &Outcome)],
    ) -> Result<(), Violation> {
        // What cannot be judged leaves its murk first: the rest may rest on it.
        let (unsure, changed): (Vec<Changed<'_>>, Vec<Changed<'_>>) = answers
            .iter()
            .filter_map(|(operation, outcome)| match (&operation.asked, outcome) {
                (Asked::Change(change), Outcome::Changed(made)) => {
                    Some((*operation, change, *made))
                }
                _ => None,
            })
            .partition(|(_, change, _)| self.model.expect(change) == Expected::Anything);
        for (_, change, made) in unsure {
            self.checked.uncertain += 1;
            self.model.apply(change, made);
        }
        let fits = |model: &Model, but: Option<usize>| {
            changed.iter().enumerate().find(|(nth, (_, change, _))| {
                let expected = model.expect(change);
                Some(*nth) != but
                    && !matches!(
                        expected,
                        Expected::Success(Effect::Nothing) | Expected::Anything
                    )
            })
        };
        let Some((_, misfit)) = fits(&self.model, None) else {
            self.settle(&changed, None);
            return Ok(());
        };
        for (nth, (_, change, made)) in changed.iter().enumerate() {
            if self.model.expect(change) == Expected::Success(Effect::Changes) {
                let mut after = self.model.clone();
                after.apply(change, *made);
                if fits(&after, Some(nth)).is_none() {
                    self.settle(&changed, Some(nth));
                    return Ok(());
                }
            }
        }
        let due = match self.model.expect(misfit.1) {
            Expected::Refusal(with) => format!("succeeded; due was {with:?}"),
            _ => format!(
                "is one of {} changes that cannot be one record",
                changed.len()
            ),
        };
        Err(broken(seq, misfit.0, due))
    }

    fn settle(&mut self, changed: &[Changed<'_>], record: Option<usize>) {
        for (nth, (_, change, made)) in changed.iter().enumerate() {
            if self.model.expect(change) == Expected::Anything {
                self.checked.uncertain += 1;
                self.model.apply(change, *made);
            } else {
                self.checked.certain += 1;
                if Some(nth) == record {
                    self.model.apply(change, *made);
                }
            }
        }
    }

    fn sees(
        &mut self,
        seq: LogSeq,
        operation: &Operation,
        outcome: &Outcome,
    ) -> Result<(), Violation> {
        match (&operation.asked, outcome) {
            (Asked::Change(change), Outcome::Failed(status)) => match self.model.expect(change) {
                Expected::Anything => self.checked.uncertain += 1,
                Expected::Refusal(with) if with.contains(status) => self.checked.certain += 1,
                expected => {
                    let due = format!("was refused with {status:?}; due was {expected:?}");
                    return Err(broken(seq, operation, due));
                }
            },
            (
                Asked::Stat(path) | Asked::List(path, _) | Asked::Usage(path),
                Outcome::Failed(status),
            ) => match self.model.find(path) {
                Expected::Anything => self.checked.uncertain += 1,
                Expected::Refusal(with) if with.contains(status) => self.checked.certain += 1,
                Expected::Success(node) if self.wrong_kind(node, *status) => {
                    self.checked.certain += 1;
                }
                expected => {
                    let due = format!("was refused with {status:?}; due was {expected:?}");
                    return Err(broken(seq, operation, due));
                }
            },
            (Asked::Stat(path), Outcome::Attrs(attrs)) => match self.model.find(path) {
                Expected::Anything => self.checked.uncertain += 1,
                Expected::Success(node) => {
                    self.checked.certain += 1;
                    self.same(seq, operation, node, attrs)?;
                }
                Expected::Refusal(with) => {
                    return Err(broken(
                        seq,
                        operation,
                        format!("found {attrs:?}; due was {with:?}"),
                    ));
                }
            },
            (Asked::List(path, after), Outcome::Entries(entries, end)) => {
                match self.model.find(path) {
                    Expected::Anything => self.checked.uncertain += 1,
                    Expected::Success(node) => {
                        self.checked.certain += 1;
                        self.same_page(seq, operation, node, after, entries, *end)?;
                    }
                    Expected::Refusal(with) => {
                        return Err(broken(
                            seq,
                            operation,
                            format!("succeeded; due was {with:?}"),
                        ));
                    }
                }
            }
            (Asked::Usage(path), Outcome::Usage(usage)) => match self.model.find(path) {
                Expected::Anything => self.checked.uncertain += 1,
                Expected::Success(node) => match self.model.count(node) {
                    None => self.checked.uncertain += 1,
                    Some(due) if due == (usage.files, usage.directories) => {
                        self.checked.certain += 1;
                    }
                    Some(due) => {
                        let (files, directories) = due;
                        let what = format!(
                            "gave {usage:?}; due were {files} files and {directories} directories"
                        );
                        return Err(broken(seq, operation, what));
                    }
                },
                Expected::Refusal(with) => {
                    return Err(broken(
                        seq,
                        operation,
                        format!("succeeded; due was {with:?}"),
                    ));
                }
            },
            _ => {}
        }
        Ok(())
    }

    fn wrong_kind(&self, node: Node, status: Status) -> bool {
        match self.model.kind(node) {
            Kind::File => status == Status::NotADirectory,
            Kind::Directory => status == Status::IsADirectory,
        }
    }

    fn same(
        &mut self,
        seq: LogSeq,
        operation: &Operation,
        node: Node,
        attrs: &Attrs,
    ) -> Result<(), Violation> {
        let kind = self.model.kind(node);
        if kind != attrs.kind {
            return Err(broken(
                seq,
                operation,
                format!("is a {:?}; due was a {kind:?}", attrs.kind),
            ));
        }
        if !self.model.is_set(node, attrs) {
            let due = format!("has {attrs:?}; due was what was set last");
            return Err(broken(seq, operation, due));
        }
        let id = self.model.learn(node, Some(attrs.file));
        if id != Some(attrs.file) {
            return Err(broken(
                seq,
                operation,
                format!("is {}; due was {id:?}", attrs.file),
            ));
        }
        if let Some(listing) = self.model.list(node) {
            let certain = listing.certain.len() as u64;
            let most = certain + listing.uncertain.len() as u64;
            if !(certain..=most).contains(&attrs.size) {
                let due = format!("has {} entries; due were {certain} to {most}", attrs.size);
                return Err(broken(seq, operation, due));
            }
        }
        Ok(())
    }

    fn same_page(
        &mut self,
        seq: LogSeq,
        operation: &Operation,
        node: Node,
        after: &[u8],
        entries: &[Entry],
        end: bool,
    ) -> Result<(), Violation> {
        let Some(listing) = self.model.list(node) else {
            return Err(broken(seq, operation, "listed a file".into()));
        };
        let last = entries.last().map(|entry| entry.name.as_slice());
        let on_page = |name: &[u8]| name > after && (end || last.is_some_and(|last| name <= last));
        let ordered = entries.windows(2).all(|pair| pair[0].name < pair[1].name);
        if !ordered || entries.iter().any(|entry| entry.name.as_slice() <= after) {
            return Err(broken(seq, operation, "a page out of order".into()));
        }
        let shown: BTreeMap<&[u8], &Entry> = entries
            .iter()
            .map(|entry| (entry.name.as_slice(), entry))
            .collect();
        for (name, node) in &listing.certain {
            if on_page(name) {
                let Some(entry) = shown.get(name.as_slice()) else {
                    let name = String::from_utf8_lossy(name);
                    return Err(broken(seq, operation, format!("misses '{name}'")));
                };
                self.same(seq, operation, *node, &entry.attrs)?;
            }
        }
        for name in shown.keys() {
            if !listing.certain.contains_key(*name) && !listing.uncertain.contains(*name) {
                let name = String::from_utf8_lossy(name);
                return Err(broken(
                    seq,
                    operation,
                    format!("shows '{name}', which is not there"),
                ));
            }
        }
        Ok(())
    }
}

fn broken(seq: LogSeq, operation: &Operation, what: String) -> Violation {
    Violation::new(
        "O1",
        "N1",
        format!(
            "state {seq}, client {}: {} {what}",
            operation.client, operation.asked
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::wire::client_meta::Parents;

    fn operation(asked: Asked, called: Tick, told: Tick, seq: u64, outcome: Outcome) -> Operation {
        Operation {
            client: 1,
            asked,
            called,
            floor: LogSeq(0),
            answer: Some(Answer {
                told,
                seq: Some(LogSeq(seq)),
                outcome,
            }),
        }
    }
    fn create(path: &str) -> Asked {
        Asked::Change(Change::Create {
            path: path.into(),
            held_by: None,
        })
    }
    fn stat(path: &str) -> Asked {
        Asked::Stat(path.into())
    }
    const MADE: Outcome = Outcome::Changed(Some(FileId(7)));
    const MISSING: Outcome = Outcome::Failed(Status::NotFound);
    fn oracle(operations: &[Operation]) -> Result<Checked, Violation> {
        check(operations, BTreeMap::new())
    }

    #[test]
    fn an_acked_create_that_vanished_is_seen() {
        let lost = [
            operation(create("a"), 1, 2, 5, MADE),
            operation(stat("a"), 3, 4, 6, MISSING),
        ];
        assert!(oracle(&lost).is_err());
        let kept = [
            operation(create("a"), 3, 4, 6, MADE),
            operation(stat("a"), 1, 2, 5, MISSING),
        ];
        assert_eq!(oracle(&kept).map(|checked| checked.certain), Ok(2));
    }

    #[test]
    fn an_answer_from_the_past_is_seen() {
        let stale = [
            operation(create("a"), 1, 2, 5, MADE),
            operation(stat("b"), 3, 4, 4, MISSING),
        ];
        assert!(oracle(&stale).is_err_and(|v| v.what.contains("after that")));
        let overlapping = [
            operation(create("a"), 1, 4, 5, MADE),
            operation(stat("b"), 3, 5, 4, MISSING),
        ];
        assert!(oracle(&overlapping).is_ok());
    }

    #[test]
    fn a_count_of_a_tree_that_no_state_has_is_seen() {
        let mkdir = Asked::Change(Change::Mkdir {
            path: b"d".to_vec(),
            parents: Parents::MustExist,
        });
        let made = operation(mkdir, 1, 2, 5, MADE);
        let create = operation(create("d/a"), 3, 8, 6, Outcome::Changed(Some(FileId(8))));
        let usage = |seq, files, directories| {
            let usage = Usage {
                files,
                directories,
                ..Usage::default()
            };
            operation(Asked::Usage(Vec::new()), 4, 7, seq, Outcome::Usage(usage))
        };
        for (seq, files, directories, fine) in [
            (5, 0, 2, true),
            (6, 1, 2, true),
            (6, 0, 2, false),
            (5, 1, 2, false),
            (6, 1, 1, false),
        ] {
            let told = [made.clone(), create.clone(), usage(seq, files, directories)];
            assert_eq!(
                oracle(&told).is_ok(),
                fine,
                "{files}, {directories} in {seq}"
            );
        }
    }

    #[test]
    fn a_change_done_twice_and_two_changes_in_one_record_are_seen() {
        let twice = [
            operation(create("a"), 1, 2, 5, MADE),
            operation(create("a"), 3, 4, 6, MADE),
        ];
        assert!(oracle(&twice).is_err());
        let together = [
            operation(create("a"), 1, 3, 5, MADE),
            operation(create("b"), 2, 4, 5, MADE),
        ];
        assert!(oracle(&together).is_err());
    }

    #[test]
    fn an_idempotent_success_beside_the_record_is_fine() {
        let mkdir = || {
            Asked::Change(Change::Mkdir {
                path: b"d".to_vec(),
                parents: Parents::Make,
            })
        };
        let both = [
            operation(mkdir(), 1, 3, 5, MADE),
            operation(mkdir(), 2, 4, 5, MADE),
        ];
        assert!(oracle(&both).is_ok());
    }

    #[test]
    fn a_lost_answer_is_believed_in_a_directory_that_comes_later() {
        let mut unknown = operation(create("d/a"), 1, 2, 0, Outcome::Failed(Status::TimedOut));
        unknown.answer.as_mut().unwrap().seq = None;
        let mkdir = Asked::Change(Change::Mkdir {
            path: b"d".to_vec(),
            parents: Parents::MustExist,
        });
        let made = operation(mkdir, 1, 3, 5, MADE);
        let seen = operation(stat("d/a"), 4, 5, 6, MISSING);
        let checked = oracle(&[unknown, made, seen]);
        assert_eq!(checked.map(|checked| checked.uncertain), Ok(1));
    }

    #[test]
    fn a_lost_answer_is_believed_both_ways() {
        let mut unknown = operation(create("a"), 1, 2, 0, Outcome::Failed(Status::TimedOut));
        unknown.answer.as_mut().unwrap().seq = None;
        let seen = operation(stat("a"), 3, 4, 6, MISSING);
        assert_eq!(
            oracle(&[unknown, seen]).map(|checked| checked.uncertain),
            Ok(1)
        );
    }
}
