//! O1, a second time: a checker of linearizability after Wing and Gong, in Lowe's manner: is there an order of
//! the operations that real time allows and that a crisp namespace answers as the clients were answered?
//!
//! It knows neither the log nor its sequence numbers, and shares no code with the reference namespace; of an
//! answer it only asks whether the meta server gave it. Operations are placed as late as possible: at each
//! answer, what may have come before is tried, with every state and every set of operations still to place
//! looked at once. Operations on paths of which none leads to the other change places freely, so only those
//! that meet are tried. An unknown outcome may take effect at any time from its call on, or never. What takes
//! more than a bound of states is undecided, and said to be so.
use super::order::{Asked, Operation, Outcome, is_decision};
use super::{Tick, Violation};
use crate::model::Change;
use kfs_core::ids::FileId;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, Entry, Kind, Parents, RenameMode};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How the search of a history ended, if no promise was broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is such an order.
    Linearizable(Searched),
    /// The bound was reached: of the operations answered later than this nothing is known.
    Undecided {
        /// The answer at which the search was given up.
        at: Tick,
        /// What was found fine before it.
        searched: Searched,
    },
}

/// How much was searched.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Searched {
    /// Answers that had to be as they were.
    pub answers: u64,
    /// Operations with an unknown outcome.
    pub unknown: u64,
    /// The most (state, operations to place) pairs that one answer took.
    pub states_most: usize,
}

/// Looks for an order of a history that begins with an empty root. Files that clients of `sessions_lost` made
/// until their session ends may vanish at any time. One answer may take `states_max` states.
///
/// # Errors
/// If there is no such order: the answer that fits none.
pub fn check(
    history: &[Operation],
    sessions_lost: &BTreeSet<u32>,
    states_max: usize,
) -> Result<Verdict, Violation> {
    let placed: Vec<Placed<'_>> = history.iter().filter_map(Placed::of).collect();
    let mut searched = Searched::default();
    let mut events: Vec<(Tick, Moment, usize)> = Vec::new();
    for (nth, one) in placed.iter().enumerate() {
        events.push((one.called, Moment::Called, nth));
        match one.told {
            Some(told) => events.push((told, Moment::Told, nth)),
            None => searched.unknown += 1,
        }
    }
    events.sort_unstable();
    let root = Rc::new(Tree::new());
    let mut front = BTreeSet::from([Point {
        tree: root,
        waiting: BTreeSet::new(),
    }]);
    for (tick, moment, nth) in events {
        match moment {
            Moment::Called => {
                front = front
                    .into_iter()
                    .map(|mut point| {
                        point.waiting.insert(nth);
                        point
                    })
                    .collect();
            }
            Moment::Told => {
                let search = Search {
                    placed: &placed,
                    sessions_lost,
                    states_max,
                    target: nth,
                };
                let Some((after, seen)) = search.run(front) else {
                    return Ok(Verdict::Undecided { at: tick, searched });
                };
                searched.states_most = searched.states_most.max(seen);
                if after.is_empty() {
                    let one = &placed[nth];
                    let what = format!(
                        "client {} called '{}' at {} and was told at {tick}: {}; no order of the operations gives that",
                        one.client,
                        one.asked,
                        one.called,
                        shown(one.outcome)
                    );
                    return Err(Violation::new("O1", "N1", what));
                }
                searched.answers += 1;
                front = after;
            }
        }
    }
    Ok(Verdict::Linearizable(searched))
}

/// What a client was told, for people.
fn shown(outcome: Option<&Outcome>) -> String {
    match outcome {
        None => "nothing".into(),
        Some(Outcome::Changed(None)) => "done".into(),
        Some(Outcome::Changed(Some(id))) => format!("done, {id}"),
        Some(Outcome::Failed(status)) => format!("{status:?}"),
        Some(Outcome::Attrs(attrs)) => {
            format!("{:?} {} of {}", attrs.kind, attrs.file, attrs.size)
        }
        Some(Outcome::Entries(entries, end)) => {
            let names: Vec<_> = entries
                .iter()
                .map(|entry| String::from_utf8_lossy(&entry.name))
                .collect();
            let end = if *end { "" } else { " and more" };
            format!("{}{end}", names.join(" "))
        }
        Some(Outcome::Usage(usage)) => format!("{usage:?}"),
    }
}

/// At one tick, calls come before answers: what overlaps by nothing overlaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Moment {
    Called,
    Told,
}

/// An operation that has a place in the order, or may have.
#[derive(Debug)]
struct Placed<'a> {
    client: u32,
    asked: &'a Asked,
    called: Tick,
    /// With what came of it; `None`: unknown.
    told: Option<Tick>,
    outcome: Option<&'a Outcome>,
    paths: Vec<Path>,
}

impl<'a> Placed<'a> {
    /// `None` if it says nothing: a question that was not answered, or a change that certainly was not made.
    fn of(operation: &'a Operation) -> Option<Self> {
        let by_meta = operation
            .answer
            .as_ref()
            .filter(|answer| answer.seq.is_some());
        // What trees take is judged by its place in the log, and against the state that it is of.
        if matches!(operation.asked, Asked::Usage(_)) {
            return None;
        }
        let known = match (&operation.asked, by_meta.map(|answer| &answer.outcome)) {
            (_, Some(Outcome::Failed(status))) if is_decision(*status) => true,
            (Asked::Change(_), Some(Outcome::Failed(status))) if turns_away(*status) => {
                return None;
            }
            (Asked::Change(_), Some(Outcome::Changed(_))) => true,
            (Asked::Change(_), _) => false,
            (_, Some(Outcome::Attrs(_) | Outcome::Entries(..))) => true,
            (Asked::Stat(_) | Asked::List(..) | Asked::Usage(_), _) => return None,
        };
        let paths = match &operation.asked {
            Asked::Change(Change::Rename { from, to, .. }) => vec![split(from), split(to)],
            // It makes what is missing above it, too: all of that changes for whoever asks there.
            Asked::Change(Change::Mkdir {
                path,
                parents: Parents::Make,
            }) => vec![split(path).into_iter().take(1).collect()],
            Asked::Change(
                Change::Mkdir { path, .. }
                | Change::Create { path, .. }
                | Change::Remove { path }
                | Change::Rmdir { path }
                | Change::RemoveTree { path }
                | Change::SetAttributes { path, .. },
            )
            | Asked::Stat(path)
            | Asked::Usage(path)
            | Asked::List(path, _) => vec![split(path)],
        };
        let answer = operation.answer.as_ref().filter(|_| known);
        Some(Self {
            client: operation.client,
            asked: &operation.asked,
            called: operation.called,
            told: answer.map(|answer| answer.told),
            outcome: answer.map(|answer| &answer.outcome),
            paths,
        })
    }
}

/// The meta server said no without looking at the namespace.
fn turns_away(status: Status) -> bool {
    matches!(
        status,
        Status::Busy | Status::ReadOnly | Status::NoServers | Status::NoRoom
    )
}

type Path = Vec<Vec<u8>>;

fn split(path: &[u8]) -> Path {
    let names = path.split(|byte| *byte == b'/');
    names
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// Whether one of two paths leads to the other.
fn meet(left: &[Vec<u8>], right: &[Vec<u8>]) -> bool {
    left.iter().zip(right).all(|(left, right)| left == right)
}

fn any_meet(left: &[Path], right: &[Path]) -> bool {
    left.iter()
        .any(|one| right.iter().any(|other| meet(one, other)))
}

/// Everything but the root, by its path.
type Tree = BTreeMap<Path, Thing>;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Thing {
    kind: What,
    /// Once an answer has said it.
    id: Option<FileId>,
    /// The client whose session's end removes it.
    held_by: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    File,
    Directory,
}

/// A namespace that may be, and the operations that are still to be placed in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Point {
    tree: Rc<Tree>,
    waiting: BTreeSet<usize>,
}

/// The search at one answer.
struct Search<'a> {
    placed: &'a [Placed<'a>],
    sessions_lost: &'a BTreeSet<u32>,
    states_max: usize,
    /// The operation that was answered: it must be placed now.
    target: usize,
}

impl Search<'_> {
    /// All points with the target placed, and how many were looked at; `None`: too many.
    fn run(&self, front: BTreeSet<Point>) -> Option<(BTreeSet<Point>, usize)> {
        let mut seen = BTreeSet::new();
        let mut after = BTreeSet::new();
        let mut open: Vec<Point> = Vec::new();
        for point in front {
            // It may have been placed at an earlier answer.
            if point.waiting.contains(&self.target) {
                open.push(point);
            } else {
                after.insert(point);
            }
        }
        while let Some(point) = open.pop() {
            if !seen.insert(point.clone()) {
                continue;
            }
            if seen.len() + after.len() > self.states_max {
                return None;
            }
            let (near, vanishing) = self.near(&point);
            for nth in near {
                if let Some(tree) = self.placed[nth].applied(&point.tree) {
                    let mut next = Point {
                        tree,
                        waiting: point.waiting.clone(),
                    };
                    next.waiting.remove(&nth);
                    if nth == self.target {
                        after.insert(next);
                    } else {
                        open.push(next);
                    }
                }
            }
            for path in vanishing {
                let mut tree = Tree::clone(&point.tree);
                tree.remove(&path);
                open.push(Point {
                    tree: Rc::new(tree),
                    waiting: point.waiting.clone(),
                });
            }
        }
        (after.len() <= self.states_max).then_some((after, seen.len()))
    }

    /// The operations to be placed that meet the target, or one that meets it, and so on; and the temporary
    /// files that may vanish among them.
    fn near(&self, point: &Point) -> (Vec<usize>, Vec<Path>) {
        let mut near = vec![self.target];
        let mut vanishing: Vec<Path> = Vec::new();
        let mut paths = self.placed[self.target].paths.clone();
        let held = |thing: &Thing| {
            thing
                .held_by
                .is_some_and(|client| self.sessions_lost.contains(&client))
        };
        loop {
            let operation = point
                .waiting
                .iter()
                .find(|nth| !near.contains(nth) && any_meet(&self.placed[**nth].paths, &paths));
            if let Some(nth) = operation {
                near.push(*nth);
                paths.extend_from_slice(&self.placed[*nth].paths);
                continue;
            }
            let file = point.tree.iter().find(|(path, thing)| {
                held(thing)
                    && !vanishing.contains(path)
                    && paths.iter().any(|other| meet(path, other))
            });
            let Some((path, _)) = file else {
                return (near, vanishing);
            };
            vanishing.push(path.clone());
            paths.push(path.clone());
        }
    }
}

impl Placed<'_> {
    /// The namespace after it, if it is answered there as it was; an unknown one, if it changes something.
    fn applied(&self, tree: &Rc<Tree>) -> Option<Rc<Tree>> {
        match (self.asked, self.outcome) {
            (Asked::Change(change), None) => match done(tree, change) {
                Ok((Some(after), _)) => Some(Rc::new(after)),
                Ok((None, _)) | Err(_) => None,
            },
            (Asked::Change(change), Some(Outcome::Changed(id))) => {
                let (after, made) = done(tree, change).ok()?;
                let after = after.map_or_else(|| Rc::clone(tree), Rc::new);
                match (made, *id) {
                    (Some(path), Some(id)) => learned(&after, &path, id),
                    _ => Some(after),
                }
            }
            (Asked::Change(change), Some(Outcome::Failed(status))) => done(tree, change)
                .is_err_and(|due| due.contains(status))
                .then(|| Rc::clone(tree)),
            (Asked::Stat(path) | Asked::List(path, _), Some(Outcome::Failed(status))) => {
                let due = match found(tree, &split(path)) {
                    Err(due) => due.contains(status),
                    // It is there, and is not what it was opened as.
                    Ok(What::File) => *status == Status::NotADirectory,
                    Ok(What::Directory) => *status == Status::IsADirectory,
                };
                due.then(|| Rc::clone(tree))
            }
            (Asked::Stat(path), Some(Outcome::Attrs(attrs))) => {
                let path = split(path);
                found(tree, &path).ok()?;
                same(tree, &path, attrs)
            }
            (Asked::List(path, after), Some(Outcome::Entries(entries, end))) => {
                page(tree, &split(path), after, entries, *end)
            }
            (_, Some(_)) | (Asked::Stat(_) | Asked::List(..) | Asked::Usage(_), None) => None,
        }
    }
}

/// What is at a path, or what the answer may be.
fn found(tree: &Tree, path: &[Vec<u8>]) -> Result<What, Vec<Status>> {
    for depth in 1..=path.len() {
        if !named_well(&path[depth - 1]) {
            // Names are looked at before or after what they stand in.
            return Err(vec![
                Status::BadName,
                Status::NotFound,
                Status::NotADirectory,
            ]);
        }
        match (
            tree.get(&path[..depth]).map(|thing| thing.kind),
            depth < path.len(),
        ) {
            (None, _) => return Err(missing(path)),
            (Some(What::File), true) => {
                return Err(if path.iter().all(|name| named_well(name)) {
                    vec![Status::NotADirectory]
                } else {
                    vec![Status::NotADirectory, Status::BadName]
                });
            }
            (Some(kind), false) => return Ok(kind),
            (Some(What::Directory), true) => {}
        }
    }
    Ok(What::Directory)
}

fn missing(path: &[Vec<u8>]) -> Vec<Status> {
    if path.iter().all(|name| named_well(name)) {
        vec![Status::NotFound]
    } else {
        vec![Status::NotFound, Status::BadName]
    }
}

fn named_well(name: &[u8]) -> bool {
    name.len() <= 255 && name != b"." && name != b".." && !name.contains(&0)
}

/// The directory that a path's last name stands in is there.
fn stands(tree: &Tree, path: &[Vec<u8>]) -> Result<(), Vec<Status>> {
    let Some((last, dirs)) = path.split_last() else {
        return Ok(());
    };
    if !named_well(last) {
        return Err(vec![
            Status::BadName,
            Status::NotFound,
            Status::NotADirectory,
        ]);
    }
    match found(tree, dirs) {
        Ok(What::Directory) => Ok(()),
        Ok(What::File) => Err(vec![Status::NotADirectory]),
        Err(due) => Err(due),
    }
}

fn children<'a>(tree: &'a Tree, dir: &'a [Vec<u8>]) -> impl Iterator<Item = (&'a Path, &'a Thing)> {
    tree.range(dir.to_vec()..)
        .take_while(move |(path, _)| path.starts_with(dir))
        .filter(move |(path, _)| path.len() == dir.len() + 1)
}

/// The namespace after a change (`None`: as before) and the path of what it made, or why it is refused.
type Done = Result<(Option<Tree>, Option<Path>), Vec<Status>>;

fn done(tree: &Tree, change: &Change) -> Done {
    match change {
        Change::Mkdir { path, parents } => make_directories(tree, split(path), *parents),
        Change::Create { path, held_by } => {
            let path = split(path);
            if path.is_empty() {
                return Err(vec![Status::Exists, Status::IsADirectory]);
            }
            stands(tree, &path)?;
            match tree.get(&path).map(|thing| thing.kind) {
                Some(What::File) => return Err(vec![Status::Exists]),
                Some(What::Directory) => return Err(vec![Status::Exists, Status::IsADirectory]),
                None => {}
            }
            let mut after = tree.clone();
            let file = Thing {
                kind: What::File,
                id: None,
                held_by: *held_by,
            };
            after.insert(path.clone(), file);
            Ok((Some(after), Some(path)))
        }
        Change::Remove { path } => {
            let path = split(path);
            match found(tree, &path)? {
                What::Directory if path.is_empty() => {
                    Err(vec![Status::BadRequest, Status::IsADirectory])
                }
                What::Directory => Err(vec![Status::IsADirectory]),
                What::File => Ok((Some(without(tree, &path)), None)),
            }
        }
        // What was set is judged by the order of the log.
        Change::SetAttributes { path, .. } => {
            found(tree, &split(path))?;
            Ok((None, None))
        }
        Change::RemoveTree { path } => {
            let path = split(path);
            match found(tree, &path)? {
                What::Directory if path.is_empty() => Err(vec![Status::BadRequest]),
                What::File => Err(vec![Status::NotADirectory]),
                What::Directory => {
                    let mut after = tree.clone();
                    after.retain(|at, _| !at.starts_with(&path));
                    Ok((Some(after), None))
                }
            }
        }
        Change::Rmdir { path } => {
            let path = split(path);
            match found(tree, &path)? {
                What::Directory if path.is_empty() => {
                    Err(vec![Status::BadRequest, Status::NotEmpty])
                }
                What::File => Err(vec![Status::NotADirectory]),
                What::Directory if children(tree, &path).next().is_some() => {
                    Err(vec![Status::NotEmpty])
                }
                What::Directory => Ok((Some(without(tree, &path)), None)),
            }
        }
        Change::Rename { from, to, mode } => rename(tree, &split(from), &split(to), *mode),
    }
}

fn without(tree: &Tree, path: &[Vec<u8>]) -> Tree {
    let mut after = tree.clone();
    after.remove(path);
    after
}

fn make_directories(tree: &Tree, path: Path, parents: Parents) -> Done {
    if path.iter().any(|name| !named_well(name)) {
        return Err(vec![
            Status::BadName,
            Status::NotFound,
            Status::NotADirectory,
            Status::Exists,
        ]);
    }
    if parents == Parents::MustExist {
        if path.is_empty() {
            return Err(vec![Status::Exists]);
        }
        stands(tree, &path)?;
        if tree.contains_key(&path) {
            return Err(vec![Status::Exists]);
        }
    }
    let mut after = None;
    for depth in 1..=path.len() {
        match tree.get(&path[..depth]).map(|thing| thing.kind) {
            Some(What::Directory) => {}
            Some(What::File) => return Err(vec![Status::Exists, Status::NotADirectory]),
            None => {
                let directory = Thing {
                    kind: What::Directory,
                    id: None,
                    held_by: None,
                };
                after
                    .get_or_insert_with(|| tree.clone())
                    .insert(path[..depth].to_vec(), directory);
            }
        }
    }
    Ok((after, Some(path)))
}

fn rename(tree: &Tree, from: &Path, to: &Path, mode: RenameMode) -> Done {
    // All that is wrong with it: which of these is said first is nobody's business.
    let mut due: Vec<Status> = Vec::new();
    let source = match found(tree, from) {
        Ok(_) if from.is_empty() => {
            due.push(Status::BadRequest);
            None
        }
        Ok(kind) => Some(kind),
        Err(why) => {
            due.extend(why);
            None
        }
    };
    if to.len() > from.len() && to.starts_with(from) {
        due.push(Status::BadRequest);
    }
    if to.is_empty() {
        due.push(Status::BadRequest);
    }
    if let Err(why) = stands(tree, to) {
        due.extend(why);
    }
    let target = tree.get(to).map(|thing| thing.kind);
    if source.is_some() && from == to && due.is_empty() {
        return Ok((None, None));
    }
    if target.is_some() && mode == RenameMode::NoReplace {
        due.push(Status::Exists);
    }
    match (source, target) {
        (Some(What::Directory), Some(What::File)) => due.push(Status::NotADirectory),
        (Some(What::File), Some(What::Directory)) => due.push(Status::IsADirectory),
        (_, Some(What::Directory)) if children(tree, to).next().is_some() => {
            due.push(Status::NotEmpty);
        }
        _ => {}
    }
    if !due.is_empty() {
        return Err(due);
    }
    let mut after = tree.clone();
    after.remove(to);
    let moved: Vec<Path> = after
        .range(from.clone()..)
        .take_while(|(path, _)| path.starts_with(from))
        .map(|(path, _)| path.clone())
        .collect();
    for path in moved {
        let mut thing = after.remove(&path).expect("it was just there");
        if path == *from && thing.kind == What::File {
            thing.held_by = None;
        }
        let there: Path = to.iter().chain(&path[from.len()..]).cloned().collect();
        after.insert(there, thing);
    }
    Ok((Some(after), None))
}

/// The namespace with what an answer said of an id; `None` if that cannot be.
fn learned(tree: &Rc<Tree>, path: &[Vec<u8>], id: FileId) -> Option<Rc<Tree>> {
    if path.is_empty() {
        return (id == FileId::ROOT).then(|| Rc::clone(tree));
    }
    match tree.get(path)?.id {
        Some(known) => (known == id).then(|| Rc::clone(tree)),
        // Nothing else has it.
        None if tree.values().any(|thing| thing.id == Some(id)) => None,
        None => {
            let mut after = Tree::clone(tree);
            after.get_mut(path)?.id = Some(id);
            Some(Rc::new(after))
        }
    }
}

fn same(tree: &Rc<Tree>, path: &[Vec<u8>], attrs: &Attrs) -> Option<Rc<Tree>> {
    let kind = if path.is_empty() {
        What::Directory
    } else {
        tree.get(path)?.kind
    };
    let fits = match (kind, attrs.kind) {
        (What::File, Kind::File) => true,
        (What::Directory, Kind::Directory) => children(tree, path).count() as u64 == attrs.size,
        (What::File, Kind::Directory) | (What::Directory, Kind::File) => false,
    };
    if fits {
        learned(tree, path, attrs.file)
    } else {
        None
    }
}

fn page(
    tree: &Rc<Tree>,
    dir: &[Vec<u8>],
    after: &[u8],
    entries: &[Entry],
    end: bool,
) -> Option<Rc<Tree>> {
    if found(tree, dir) != Ok(What::Directory) {
        return None;
    }
    let name = |path: &Path| path[dir.len()].clone();
    let due: Vec<Vec<u8>> = children(tree, dir)
        .map(|(path, _)| name(path))
        .filter(|name| name.as_slice() > after)
        .collect();
    let whole = if end {
        due.len() == entries.len()
    } else {
        !entries.is_empty() && entries.len() < due.len()
    };
    if !whole
        || !entries
            .iter()
            .zip(&due)
            .all(|(entry, due)| entry.name == *due)
    {
        return None;
    }
    let mut learned = Rc::clone(tree);
    for entry in entries {
        let path: Path = dir.iter().chain([&entry.name]).cloned().collect();
        learned = same(&learned, &path, &entry.attrs)?;
    }
    Some(learned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Keyed;
    use crate::oracle::order::Answer;
    use kfs_core::ids::LogSeq;
    use kfs_core::time::UnixNanos;

    fn operation(asked: Asked, called: Tick, told: Tick, outcome: Outcome) -> Operation {
        Operation {
            client: 1,
            asked,
            called,
            floor: LogSeq(0),
            answer: Some(Answer {
                told,
                // Always the same: it must not be looked at.
                seq: Some(LogSeq(1)),
                outcome,
            }),
        }
    }
    fn unknown(asked: Asked, called: Tick) -> Operation {
        Operation {
            answer: None,
            ..operation(asked, called, 0, Outcome::Changed(None))
        }
    }
    fn create(path: &str) -> Asked {
        Asked::Change(Change::Create {
            path: path.into(),
            held_by: None,
        })
    }
    fn mkdir(path: &str) -> Asked {
        Asked::Change(Change::Mkdir {
            path: path.into(),
            parents: Parents::MustExist,
        })
    }
    fn rename(from: &str, to: &str) -> Asked {
        Asked::Change(Change::Rename {
            from: from.into(),
            to: to.into(),
            mode: RenameMode::Replace,
        })
    }
    fn remove(path: &str) -> Asked {
        Asked::Change(Change::Remove { path: path.into() })
    }
    fn stat(path: &str) -> Asked {
        Asked::Stat(path.into())
    }
    fn attrs(kind: Kind, id: u64, size: u64) -> Attrs {
        Attrs {
            file: FileId(id),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size,
            replication: 1,
            links: 1,
            mtime: UnixNanos(0),
            ctime: UnixNanos(0),
            crtime: UnixNanos(0),
        }
    }
    fn is_file(id: u64) -> Outcome {
        Outcome::Attrs(attrs(Kind::File, id, 0))
    }
    const DONE: Outcome = Outcome::Changed(None);
    const MISSING: Outcome = Outcome::Failed(Status::NotFound);
    fn made(id: u64) -> Outcome {
        Outcome::Changed(Some(FileId(id)))
    }
    fn judged(history: &[Operation]) -> Result<Verdict, Violation> {
        check(history, &BTreeSet::new(), 10_000)
    }
    fn fine(history: &[Operation]) -> bool {
        matches!(judged(history), Ok(Verdict::Linearizable(_)))
    }

    #[test]
    fn an_acked_change_that_is_not_seen_afterwards_is_accused() {
        let lost = [
            operation(create("a"), 1, 2, made(7)),
            operation(stat("a"), 3, 4, MISSING),
        ];
        assert!(judged(&lost).is_err_and(|v| v.what.contains("stat /a")));
        let overlaps = [
            operation(create("a"), 1, 4, made(7)),
            operation(stat("a"), 3, 5, MISSING),
        ];
        assert!(fine(&overlaps));
    }

    #[test]
    fn what_was_seen_once_does_not_vanish_again() {
        let flickers = [
            operation(create("a"), 1, 9, made(7)),
            operation(stat("a"), 2, 3, is_file(7)),
            operation(stat("a"), 4, 5, MISSING),
        ];
        assert!(judged(&flickers).is_err());
        let appears = [
            operation(create("a"), 1, 9, made(7)),
            operation(stat("a"), 2, 3, MISSING),
            operation(stat("a"), 4, 5, is_file(7)),
        ];
        assert!(fine(&appears));
    }

    #[test]
    fn a_change_done_twice_is_accused() {
        let twice = [
            operation(create("a"), 1, 2, made(7)),
            operation(create("a"), 3, 4, made(8)),
        ];
        assert!(judged(&twice).is_err());
        let between = [
            operation(create("a"), 1, 2, made(7)),
            operation(remove("a"), 2, 6, DONE),
            operation(create("a"), 3, 4, made(8)),
        ];
        assert!(fine(&between));
    }

    #[test]
    fn a_torn_rename_is_accused() {
        let setup = operation(create("a"), 1, 2, made(7));
        let moving = operation(rename("a", "b"), 3, 9, DONE);
        let both = [
            setup.clone(),
            moving.clone(),
            operation(stat("b"), 4, 5, is_file(7)),
            operation(stat("a"), 6, 7, is_file(7)),
        ];
        assert!(judged(&both).is_err());
        let neither = [
            setup.clone(),
            moving.clone(),
            operation(stat("a"), 4, 5, MISSING),
            operation(stat("b"), 6, 7, MISSING),
        ];
        assert!(judged(&neither).is_err());
        let moved = [
            setup,
            moving,
            operation(stat("b"), 4, 5, MISSING),
            operation(stat("a"), 6, 7, MISSING),
            operation(stat("b"), 8, 10, is_file(7)),
        ];
        assert!(fine(&moved));
    }

    #[test]
    fn an_unknown_outcome_happens_once_at_any_time_from_its_call_on_or_never() {
        let history = |seen: [Outcome; 3]| {
            let mut history = vec![operation(stat("a"), 1, 2, MISSING), unknown(create("a"), 3)];
            for (at, outcome) in (4..).step_by(2).zip(seen) {
                history.push(operation(stat("a"), at, at + 1, outcome));
            }
            history
        };
        assert!(fine(&history([MISSING, MISSING, MISSING])));
        assert!(fine(&history([MISSING, MISSING, is_file(7)])));
        assert!(fine(&history([is_file(7), is_file(7), is_file(7)])));
        assert!(judged(&history([is_file(7), MISSING, MISSING])).is_err());
        let mut early = history([is_file(7), is_file(7), is_file(7)]);
        early[0] = operation(stat("a"), 1, 2, is_file(7));
        assert!(judged(&early).is_err(), "not before it was called");
        let mut again = history([is_file(7), is_file(7), is_file(8)]);
        again.push(operation(remove("a"), 7, 8, DONE));
        assert!(judged(&again).is_err(), "not twice");
    }

    #[test]
    fn a_page_that_misses_a_name_or_shows_one_too_many_is_accused() {
        let entry = |name: &str, id| Entry {
            name: name.into(),
            attrs: attrs(Kind::File, id, 0),
        };
        let history = |entries: Vec<Entry>, end| {
            vec![
                operation(mkdir("d"), 1, 2, made(5)),
                operation(create("d/a"), 3, 4, made(7)),
                operation(create("d/b"), 5, 6, made(8)),
                operation(
                    Asked::List(b"d".to_vec(), Vec::new()),
                    7,
                    8,
                    Outcome::Entries(entries, end),
                ),
            ]
        };
        assert!(fine(&history(vec![entry("a", 7), entry("b", 8)], true)));
        assert!(fine(&history(vec![entry("a", 7)], false)));
        for (entries, end) in [
            (vec![entry("a", 7)], true),
            (vec![entry("b", 8)], false),
            (vec![entry("a", 7), entry("b", 8)], false),
            (vec![entry("a", 8), entry("b", 7)], true),
            (vec![entry("a", 7), entry("b", 8), entry("c", 9)], true),
            (vec![entry("b", 8), entry("a", 7)], true),
        ] {
            assert!(judged(&history(entries, end)).is_err());
        }
        let mut counted = history(vec![entry("a", 7)], false);
        let wrong = Outcome::Attrs(attrs(Kind::Directory, 5, 3));
        counted.push(operation(stat("d"), 9, 10, wrong));
        assert!(judged(&counted).is_err(), "a directory counts its entries");
    }

    #[test]
    fn a_temporary_file_may_vanish_only_with_its_session_and_not_once_it_is_renamed() {
        let temporary = |path: &str| {
            Asked::Change(Change::Create {
                path: path.into(),
                held_by: Some(1),
            })
        };
        let gone = [
            operation(temporary("t"), 1, 2, made(7)),
            operation(stat("t"), 3, 4, MISSING),
        ];
        assert!(judged(&gone).is_err());
        let lost = BTreeSet::from([1]);
        assert!(matches!(
            check(&gone, &lost, 1_000),
            Ok(Verdict::Linearizable(_))
        ));
        let renamed = [
            operation(temporary("t"), 1, 2, made(7)),
            operation(rename("t", "f"), 3, 4, DONE),
            operation(stat("f"), 5, 6, MISSING),
        ];
        assert!(check(&renamed, &lost, 1_000).is_err());
    }

    #[test]
    fn a_history_over_the_bound_is_undecided_and_not_fine() {
        let mut history: Vec<Operation> = (0..12)
            .map(|nth| unknown(create(&format!("d/{nth}")), 3))
            .collect();
        history.insert(0, operation(mkdir("d"), 1, 2, made(5)));
        let seen = Outcome::Attrs(attrs(Kind::Directory, 5, 6));
        history.push(operation(stat("d"), 20, 21, seen));
        assert!(matches!(
            check(&history, &BTreeSet::new(), 100),
            Ok(Verdict::Undecided { at: 21, .. })
        ));
        assert!(fine(&history), "924 of the 4,096 sets of files fit");
    }

    /// Clients one beside the other on a crisp tree: every such history is fine, and with one answer turned
    /// round none of many is.
    #[test]
    fn random_histories_with_known_orders_are_acquitted_and_changed_answers_accused() {
        let (mut accused, mut changed) = (0, 0);
        for seed in 0..60 {
            let mut draws = Keyed::new(seed, "history");
            let mut tree = Tree::new();
            let mut history = Vec::new();
            for nth in 0..60_u64 {
                let path = |draws: &mut Keyed| draws.pick(&["a", "b", "d", "d/a", "d/b", "d/d"]);
                let first = path(&mut draws);
                let asked = match draws.below(6) {
                    0 => create(first),
                    1 => mkdir(first),
                    2 => rename(first, path(&mut draws)),
                    3 => remove(first),
                    _ => stat(first),
                };
                let outcome = answer(&mut tree, &asked, nth + 10);
                // The effect is at 10 n; calls reach back and answers forward over the neighbours'.
                let at = 10 * nth + 100;
                let (before, behind) = (draws.below(40), draws.below(40));
                history.push(operation(asked, at - before, at + behind, outcome));
            }
            let mut broken = history.clone();
            history.sort_by_key(|operation| operation.called);
            assert!(fine(&history), "seed {seed}: {:?}", judged(&history));
            let turned = broken.iter_mut().rev().find_map(|operation| {
                let answer = operation.answer.as_mut()?;
                let (Asked::Stat(_), Outcome::Attrs(attrs)) =
                    (&operation.asked, &mut answer.outcome)
                else {
                    return None;
                };
                attrs.file = FileId(9);
                Some(())
            });
            if turned.is_some() {
                changed += 1;
                accused += u64::from(judged(&broken).is_err());
            }
        }
        assert!(changed > 40 && accused == changed, "{accused} of {changed}");
    }

    fn answer(tree: &mut Tree, asked: &Asked, id: u64) -> Outcome {
        match asked {
            Asked::Change(change) => match done(tree, change) {
                Ok((after, path)) => {
                    *tree = after.unwrap_or_else(|| tree.clone());
                    let thing = path.and_then(|path| tree.get_mut(&path));
                    Outcome::Changed(thing.map(|thing| *thing.id.get_or_insert(FileId(id))))
                }
                Err(due) => Outcome::Failed(due[0]),
            },
            Asked::Stat(path) => match found(tree, &split(path)) {
                Ok(kind) => {
                    let path = split(path);
                    let (kind, size) = match kind {
                        What::File => (Kind::File, 0),
                        What::Directory => (Kind::Directory, children(tree, &path).count()),
                    };
                    let id = tree[&path].id.map_or(0, |id| id.0);
                    Outcome::Attrs(attrs(kind, id, size as u64))
                }
                Err(due) => Outcome::Failed(due[0]),
            },
            Asked::List(..) | Asked::Usage(_) => unreachable!("none is drawn"),
        }
    }

    #[test]
    fn what_mkdir_makes_above_its_name_came_after_an_answer_beside_it() {
        let parents = Asked::Change(Change::Mkdir {
            path: b"/p/q1".to_vec(),
            parents: Parents::Make,
        });
        // The refusal overlaps the mkdir and is told after it: it looked before.
        let history = [
            operation(parents, 1, 3, Outcome::Changed(None)),
            operation(create("/p/q0"), 2, 4, Outcome::Failed(Status::NotFound)),
        ];
        let verdict = check(&history, &BTreeSet::new(), 1_000);
        assert!(
            matches!(verdict, Ok(Verdict::Linearizable(_))),
            "{verdict:?}"
        );
        // Asked after it was told, it must find the directory.
        let [made, mut late] = history;
        late.called = 4;
        late.answer.as_mut().unwrap().told = 5;
        assert!(check(&[made, late], &BTreeSet::new(), 1_000).is_err());
    }
}
