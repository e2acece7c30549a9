//! The reference namespace: what the meta server promises, as a map anybody can read.
//!
//! Operations with an unknown outcome leave *murk* on the names they touch: from then on both outcomes are
//! believed there. The model never guesses, so it accuses nobody falsely; how much was left unchecked is
//! counted by whoever asks.
use kfs_core::ids::{FileId, LogSeq};
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attributes, Attrs, Kind, Parents, RenameMode};
use std::collections::{BTreeMap, BTreeSet};

type Name = Vec<u8>;

/// A file or directory, apart from its names and its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Node(usize);

#[derive(Clone, Debug)]
enum Content {
    File,
    Dir {
        entries: BTreeMap<Name, Node>,
        /// Names of which both presence and absence are believed.
        murky: BTreeSet<Name>,
    },
}

#[derive(Clone, Debug)]
struct Thing {
    content: Content,
    /// Once anybody has seen it.
    id: Option<FileId>,
    /// The client whose session's end removes it, until it is renamed.
    held_by: Option<u32>,
    /// Mode, owner and group, as far as they were set.
    set: Attributes,
}

/// A change of the namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// See the client's call of this name.
    Mkdir {
        /// From the root, as in the call.
        path: Vec<u8>,
        /// As in the call.
        parents: Parents,
    },
    /// See the client's call of this name.
    Create {
        /// From the root, as in the call.
        path: Vec<u8>,
        /// The client whose session's end removes it, if any.
        held_by: Option<u32>,
    },
    /// See the client's call of this name.
    Rename {
        /// From the root, as in the call.
        from: Vec<u8>,
        /// From the root, as in the call.
        to: Vec<u8>,
        /// As in the call.
        mode: RenameMode,
    },
    /// See the client's call of this name.
    Remove {
        /// From the root, as in the call.
        path: Vec<u8>,
    },
    /// See the client's call of this name.
    Rmdir {
        /// From the root, as in the call.
        path: Vec<u8>,
    },
    /// See the client's call of this name.
    RemoveTree {
        /// From the root, as in the call.
        path: Vec<u8>,
    },
    /// See the client's call of this name.
    SetAttributes {
        /// From the root, as in the call.
        path: Vec<u8>,
        /// As in the call.
        to: Attributes,
    },
}

/// What must come of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected<T> {
    /// It succeeds.
    Success(T),
    /// It is refused with one of these.
    Refusal(Vec<Status>),
    /// Nothing can be said.
    Anything,
}

/// What a success changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// A record is in the log for it.
    Changes,
    /// It was so already.
    Nothing,
}

/// The namespace as it must be.
#[derive(Clone, Debug)]
pub struct Model {
    things: Vec<Thing>,
    /// Clients whose session ended, or may have, and the state from which on it may have.
    sessions_lost: BTreeMap<u32, LogSeq>,
    at: LogSeq,
    /// Attributes may have been set, or may yet be, of whatever has some name then: nothing is said of any.
    attributes_unsure: bool,
}

const ROOT: Node = Node(0);

/// Where a path leads.
enum Walk {
    Found(Node),
    /// The last component is missing in this directory.
    Free(Node, Name),
    Murky,
    Refused(Status),
}

impl Model {
    /// An empty root; the sessions of these clients ended, or may have, at any time after these states.
    #[must_use]
    pub fn new(sessions_lost: BTreeMap<u32, LogSeq>) -> Self {
        let root = Thing {
            content: Content::Dir {
                entries: BTreeMap::new(),
                murky: BTreeSet::new(),
            },
            id: Some(FileId::ROOT),
            held_by: None,
            set: Attributes::default(),
        };
        Self {
            things: vec![root],
            sessions_lost,
            at: LogSeq(0),
            attributes_unsure: false,
        }
    }

    /// What comes next is in this state.
    pub fn set_at(&mut self, at: LogSeq) {
        assert!(self.at <= at, "the log is replayed forwards");
        self.at = at;
    }

    /// What must come of a change in this state.
    #[must_use]
    pub fn expect(&self, change: &Change) -> Expected<Effect> {
        let mut refusals = Vec::new();
        let mut effect = Effect::Changes;
        match change {
            Change::Mkdir {
                path,
                parents: Parents::MustExist,
            } => match self.walk(path) {
                Walk::Murky => return Expected::Anything,
                Walk::Refused(status) => refusals.push(status),
                Walk::Found(_) => refusals.push(Status::Exists),
                Walk::Free(..) => {}
            },
            Change::Mkdir {
                path,
                parents: Parents::Make,
            } => match self.walk_existing(path) {
                Walk::Murky => return Expected::Anything,
                Walk::Refused(Status::NotADirectory) => {
                    refusals.extend([Status::NotADirectory, Status::Exists]);
                }
                Walk::Refused(status) => refusals.push(status),
                Walk::Found(node) => match self.kind(node) {
                    Kind::Directory => effect = Effect::Nothing,
                    Kind::File => refusals.extend([Status::Exists, Status::NotADirectory]),
                },
                Walk::Free(..) => {}
            },
            Change::Create { path, .. } => match self.walk(path) {
                Walk::Murky => return Expected::Anything,
                Walk::Refused(status) => refusals.push(status),
                Walk::Found(node) => {
                    refusals.push(Status::Exists);
                    if self.kind(node) == Kind::Directory {
                        refusals.push(Status::IsADirectory);
                    }
                }
                Walk::Free(..) => {}
            },
            Change::Rename { from, to, mode } => {
                return self.expect_rename(from, to, *mode);
            }
            Change::Remove { path } => match self.walk(path) {
                Walk::Murky => return Expected::Anything,
                Walk::Refused(status) => refusals.push(status),
                Walk::Free(..) => refusals.push(Status::NotFound),
                Walk::Found(ROOT) => refusals.extend([Status::BadRequest, Status::IsADirectory]),
                Walk::Found(node) if self.kind(node) == Kind::Directory => {
                    refusals.push(Status::IsADirectory);
                }
                Walk::Found(node) if self.may_be_gone(node) => return Expected::Anything,
                Walk::Found(_) => {}
            },
            Change::SetAttributes { path, to } => match self.walk(path) {
                Walk::Murky => return Expected::Anything,
                Walk::Refused(status) => refusals.push(status),
                Walk::Free(..) => refusals.push(Status::NotFound),
                Walk::Found(node) if self.may_be_gone(node) => return Expected::Anything,
                Walk::Found(_) if *to == Attributes::default() => effect = Effect::Nothing,
                Walk::Found(_) => {}
            },
            Change::RemoveTree { path } => match self.walk(path) {
                Walk::Murky => return Expected::Anything,
                Walk::Refused(status) => refusals.push(status),
                Walk::Free(..) => refusals.push(Status::NotFound),
                Walk::Found(ROOT) => refusals.push(Status::BadRequest),
                Walk::Found(node) if self.may_be_gone(node) => return Expected::Anything,
                Walk::Found(node) if self.kind(node) == Kind::File => {
                    refusals.push(Status::NotADirectory);
                }
                Walk::Found(_) => {}
            },
            Change::Rmdir { path } => match self.walk(path) {
                Walk::Murky => return Expected::Anything,
                Walk::Refused(status) => refusals.push(status),
                Walk::Free(..) => refusals.push(Status::NotFound),
                Walk::Found(ROOT) => refusals.extend([Status::BadRequest, Status::NotEmpty]),
                Walk::Found(node) => match &self.things[node.0].content {
                    Content::File => refusals.push(Status::NotADirectory),
                    Content::Dir { .. } if self.emptiness_unknown(node) => {
                        return Expected::Anything;
                    }
                    Content::Dir { entries, .. } if !entries.is_empty() => {
                        refusals.push(Status::NotEmpty);
                    }
                    Content::Dir { .. } => {}
                },
            },
        }
        if refusals.is_empty() {
            Expected::Success(effect)
        } else {
            Expected::Refusal(refusals)
        }
    }

    fn expect_rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> Expected<Effect> {
        let mut refusals = Vec::new();
        let source = match self.walk(from) {
            Walk::Murky => return Expected::Anything,
            Walk::Refused(status) => {
                refusals.push(status);
                None
            }
            Walk::Free(..) => {
                refusals.push(Status::NotFound);
                None
            }
            Walk::Found(ROOT) => {
                refusals.push(Status::BadRequest);
                None
            }
            Walk::Found(node) if self.may_be_gone(node) => return Expected::Anything,
            Walk::Found(node) => Some(node),
        };
        if under(from, to) {
            refusals.push(Status::BadRequest);
        }
        match self.walk(to) {
            Walk::Murky => return Expected::Anything,
            Walk::Refused(status) => refusals.push(status),
            Walk::Free(..) => {}
            Walk::Found(target) if Some(target) == source => {
                // Onto itself: nothing to do, or the name is taken.
                return match mode {
                    RenameMode::Replace => Expected::Success(Effect::Nothing),
                    RenameMode::NoReplace => Expected::Anything,
                };
            }
            Walk::Found(target) => {
                if target == ROOT {
                    refusals.push(Status::BadRequest);
                }
                if mode == RenameMode::NoReplace {
                    refusals.push(Status::Exists);
                }
                if self.may_be_gone(target) || self.emptiness_unknown(target) {
                    return Expected::Anything;
                }
                let source_kind = source.map(|node| self.kind(node));
                match &self.things[target.0].content {
                    Content::File if source_kind == Some(Kind::Directory) => {
                        refusals.push(Status::NotADirectory);
                    }
                    Content::File => {}
                    Content::Dir { .. } if source_kind == Some(Kind::File) => {
                        refusals.push(Status::IsADirectory);
                    }
                    Content::Dir { entries, .. } if !entries.is_empty() => {
                        refusals.push(Status::NotEmpty);
                    }
                    Content::Dir { .. } => {}
                }
            }
        }
        if refusals.is_empty() {
            Expected::Success(Effect::Changes)
        } else {
            Expected::Refusal(refusals)
        }
    }

    /// Applies a change that succeeded. What could not be known leaves murk.
    pub fn apply(&mut self, change: &Change, made: Option<FileId>) {
        if let Change::Rename { from: path, .. } | Change::Remove { path } = change {
            // The success proves that a temporary file was still there.
            if let Walk::Found(node) = self.walk(path) {
                self.things[node.0].held_by = None;
            }
        }
        if self.expect(change) == Expected::Anything {
            return self.doubt(change);
        }
        match change {
            Change::Mkdir { path, .. } => {
                let mut at = ROOT;
                for name in components(path) {
                    at = match self.entry(at, name) {
                        Some(node) => node,
                        None => self.add(at, name, Kind::Directory, None),
                    };
                }
                self.learn(at, made);
            }
            Change::Create { path, held_by } => {
                if let Walk::Free(dir, name) = self.walk(path) {
                    let node = self.add(dir, &name, Kind::File, *held_by);
                    self.learn(node, made);
                }
            }
            Change::Rename { from, to, .. } => {
                let Some((from_dir, from_name)) = self.slot(from) else {
                    return;
                };
                let Some(node) = self.entry(from_dir, &from_name) else {
                    return;
                };
                if let Some((to_dir, to_name)) = self.slot(to) {
                    self.entries(from_dir).remove(&from_name);
                    self.entries(to_dir).insert(to_name, node);
                    self.things[node.0].held_by = None;
                }
            }
            Change::SetAttributes { path, to } => {
                if let Walk::Found(node) = self.walk(path) {
                    let set = &mut self.things[node.0].set;
                    set.mode = to.mode.map(|mode| mode & 0o7777).or(set.mode);
                    (set.uid, set.gid) = (to.uid.or(set.uid), to.gid.or(set.gid));
                }
            }
            Change::Remove { path } | Change::Rmdir { path } | Change::RemoveTree { path } => {
                if let Some((dir, name)) = self.slot(path) {
                    self.entries(dir).remove(&name);
                }
            }
        }
    }

    /// A change may have happened, or may yet: the names it touches are believed both ways.
    pub fn doubt(&mut self, change: &Change) {
        match change {
            Change::Mkdir { path, .. } => {
                // Of `mkdir -p`, the first name that is missing.
                let mut at = ROOT;
                for name in components(path) {
                    match self.entry(at, name) {
                        Some(node) if self.kind(node) == Kind::Directory => at = node,
                        Some(_) | None => {
                            self.murk(at, name.to_vec());
                            break;
                        }
                    }
                }
            }
            Change::Create { path, .. }
            | Change::Remove { path }
            | Change::Rmdir { path }
            | Change::RemoveTree { path } => {
                self.murk_path(path);
            }
            Change::SetAttributes { .. } => self.attributes_unsure = true,
            Change::Rename { from, to, .. } => {
                self.murk_path(from);
                self.murk_path(to);
            }
        }
    }

    /// What a question about this path must find.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Expected<Node> {
        match self.walk(path) {
            Walk::Murky => Expected::Anything,
            Walk::Refused(status) => Expected::Refusal(vec![status]),
            Walk::Free(..) => Expected::Refusal(vec![Status::NotFound]),
            Walk::Found(node) if self.may_be_gone(node) => Expected::Anything,
            Walk::Found(node) => Expected::Success(node),
        }
    }

    /// What a thing is.
    #[must_use]
    pub fn kind(&self, node: Node) -> Kind {
        match self.things[node.0].content {
            Content::File => Kind::File,
            Content::Dir { .. } => Kind::Directory,
        }
    }

    /// Its id, if anybody has seen it; sets it when it is seen for the first time.
    pub fn learn(&mut self, node: Node, seen: Option<FileId>) -> Option<FileId> {
        let id = &mut self.things[node.0].id;
        *id = id.or(seen);
        *id
    }

    /// Whether these attributes are those that were set last.
    #[must_use]
    pub fn is_set(&self, node: Node, seen: &Attrs) -> bool {
        let set = &self.things[node.0].set;
        let same = |set: Option<u32>, seen| set.is_none_or(|set| set == seen);
        self.attributes_unsure
            || same(set.mode, seen.mode) && same(set.uid, seen.uid) && same(set.gid, seen.gid)
    }

    /// The certain entries of a directory, and whether some names are uncertain; `None` for a file.
    #[must_use]
    pub fn list(&self, node: Node) -> Option<Listing> {
        match &self.things[node.0].content {
            Content::File => None,
            Content::Dir { entries, murky } => {
                let (unsure, certain): (Vec<_>, Vec<_>) = entries
                    .iter()
                    .map(|(name, node)| (name.clone(), *node))
                    .partition(|(name, node)| murky.contains(name) || self.may_be_gone(*node));
                let mut uncertain = murky.clone();
                uncertain.extend(unsure.into_iter().map(|(name, _)| name));
                Some(Listing {
                    certain: certain.into_iter().collect(),
                    uncertain,
                })
            }
        }
    }

    /// Files and directories from here on down, itself among them; `None`: not all that is there is certain.
    #[must_use]
    pub fn count(&self, node: Node) -> Option<(u64, u64)> {
        let (mut files, mut directories) = (0, 0);
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            let Some(listing) = self.list(node) else {
                files += 1;
                continue;
            };
            if !listing.uncertain.is_empty() {
                return None;
            }
            directories += 1;
            open.extend(listing.certain.into_values());
        }
        Some((files, directories))
    }

    fn walk(&self, path: &[u8]) -> Walk {
        let mut at = ROOT;
        let mut parts = components(path).peekable();
        while let Some(name) = parts.next() {
            match self.step(at, name) {
                Walk::Found(node) => at = node,
                Walk::Free(..) if parts.peek().is_some() => return Walk::Refused(Status::NotFound),
                other => return other,
            }
        }
        Walk::Found(at)
    }

    /// As far as `mkdir -p` finds what is there: `Free` at the first name that is missing.
    fn walk_existing(&self, path: &[u8]) -> Walk {
        let mut at = ROOT;
        for name in components(path) {
            match self.step(at, name) {
                Walk::Found(node) => at = node,
                other => return other,
            }
        }
        Walk::Found(at)
    }

    fn step(&self, at: Node, name: &[u8]) -> Walk {
        match &self.things[at.0].content {
            Content::File => Walk::Refused(Status::NotADirectory),
            Content::Dir { .. } if name.len() > 255 || name == b"." || name == b".." => {
                Walk::Refused(Status::BadName)
            }
            Content::Dir { murky, .. } if murky.contains(name) => Walk::Murky,
            Content::Dir { entries, .. } => match entries.get(name) {
                Some(node) => Walk::Found(*node),
                None => Walk::Free(at, name.to_vec()),
            },
        }
    }

    /// A temporary file whose session may have ended.
    fn may_be_gone(&self, node: Node) -> bool {
        let holder = self.things[node.0].held_by;
        let lost = holder.and_then(|client| self.sessions_lost.get(&client));
        lost.is_some_and(|from| *from <= self.at)
    }
    fn emptiness_unknown(&self, node: Node) -> bool {
        self.list(node)
            .is_some_and(|listing| !listing.uncertain.is_empty())
    }

    fn slot(&self, path: &[u8]) -> Option<(Node, Name)> {
        let parts: Vec<&[u8]> = components(path).collect();
        let (name, dirs) = parts.split_last()?;
        let mut at = ROOT;
        for dir in dirs {
            at = self.entry(at, dir)?;
        }
        matches!(self.things[at.0].content, Content::Dir { .. }).then(|| (at, name.to_vec()))
    }
    fn entry(&self, dir: Node, name: &[u8]) -> Option<Node> {
        match &self.things[dir.0].content {
            Content::File => None,
            Content::Dir { entries, .. } => entries.get(name).copied(),
        }
    }
    fn entries(&mut self, dir: Node) -> &mut BTreeMap<Name, Node> {
        match &mut self.things[dir.0].content {
            Content::File => unreachable!("names stand in directories"),
            Content::Dir { entries, .. } => entries,
        }
    }
    fn add(&mut self, dir: Node, name: &[u8], kind: Kind, held_by: Option<u32>) -> Node {
        let content = match kind {
            Kind::File => Content::File,
            Kind::Directory => Content::Dir {
                entries: BTreeMap::new(),
                murky: BTreeSet::new(),
            },
        };
        let node = Node(self.things.len());
        self.things.push(Thing {
            content,
            id: None,
            held_by,
            set: Attributes::default(),
        });
        self.entries(dir).insert(name.to_vec(), node);
        node
    }
    fn murk_path(&mut self, path: &[u8]) {
        if let Some((dir, name)) = self.slot(path) {
            self.murk(dir, name);
        }
    }
    fn murk(&mut self, dir: Node, name: Name) {
        if let Content::Dir { murky, .. } = &mut self.things[dir.0].content {
            murky.insert(name);
        }
    }
}

/// What a directory must have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Names that are there.
    pub certain: BTreeMap<Vec<u8>, Node>,
    /// Names that may be there.
    pub uncertain: BTreeSet<Vec<u8>>,
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty())
}

/// Whether `path` is strictly below `dir`.
fn under(dir: &[u8], path: &[u8]) -> bool {
    let mut parts = components(path);
    components(dir).all(|name| parts.next() == Some(name)) && parts.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }
    fn mkdir(at: &str) -> Change {
        Change::Mkdir {
            path: path(at),
            parents: Parents::MustExist,
        }
    }
    fn create(at: &str) -> Change {
        Change::Create {
            path: path(at),
            held_by: None,
        }
    }
    fn rename(from: &str, to: &str) -> Change {
        Change::Rename {
            from: path(from),
            to: path(to),
            mode: RenameMode::Replace,
        }
    }
    fn model(done: &[Change]) -> Model {
        let mut model = Model::new(BTreeMap::from([(9, LogSeq(0))]));
        for change in done {
            assert_eq!(model.expect(change), Expected::Success(Effect::Changes));
            model.apply(change, None);
        }
        model
    }
    fn refused(status: Status) -> Expected<Effect> {
        Expected::Refusal(vec![status])
    }

    #[test]
    fn a_directory_is_not_moved_into_itself_and_names_move_with_what_they_name() {
        let mut model = model(&[mkdir("a"), mkdir("a/b"), create("a/b/f")]);
        assert_eq!(
            model.expect(&rename("a", "a/b/c")),
            refused(Status::BadRequest)
        );
        model.apply(&rename("a/b", "c"), None);
        assert!(matches!(model.find(b"c/f"), Expected::Success(_)));
        assert_eq!(
            model.find(b"a/b"),
            Expected::Refusal(vec![Status::NotFound])
        );
        assert_eq!(
            model.expect(&create("c/f/x")),
            refused(Status::NotADirectory)
        );
    }

    #[test]
    fn a_tree_goes_with_all_that_is_in_it_whatever_is_known_of_that() {
        let mut model = model(&[mkdir("a"), mkdir("a/b"), create("a/b/f"), create("g")]);
        model.doubt(&create("a/b/h"));
        let tree = |at: &str| Change::RemoveTree { path: path(at) };
        assert_eq!(model.expect(&tree("g")), refused(Status::NotADirectory));
        assert_eq!(model.expect(&tree("")), refused(Status::BadRequest));
        assert_eq!(model.expect(&tree("a")), Expected::Success(Effect::Changes));
        model.apply(&tree("a"), None);
        for gone in [&b"a"[..], b"a/b", b"a/b/f", b"a/b/h"] {
            assert_eq!(model.find(gone), Expected::Refusal(vec![Status::NotFound]));
        }
        model.doubt(&tree("a"));
        assert_eq!(model.find(b"a/b"), Expected::Anything);
    }

    #[test]
    fn an_unknown_outcome_is_believed_both_ways_and_only_there() {
        let mut model = model(&[mkdir("a"), create("a/f")]);
        model.doubt(&rename("a/f", "a/g"));
        assert_eq!(model.find(b"a/f"), Expected::Anything);
        assert_eq!(model.find(b"a/g"), Expected::Anything);
        assert_eq!(
            model.find(b"a/h"),
            Expected::Refusal(vec![Status::NotFound])
        );
        let rmdir = Change::Rmdir { path: path("a") };
        assert_eq!(model.expect(&rmdir), Expected::Anything);
    }

    #[test]
    fn a_temporary_file_of_a_lost_session_may_be_gone_until_it_is_renamed() {
        let mut model = model(&[Change::Create {
            path: path("t"),
            held_by: Some(9),
        }]);
        assert_eq!(model.find(b"t"), Expected::Anything);
        model.apply(&rename("t", "f"), None);
        assert!(matches!(model.find(b"f"), Expected::Success(_)));
        let held = Change::Create {
            path: path("u"),
            held_by: Some(1),
        };
        model.apply(&held, None);
        assert!(matches!(model.find(b"u"), Expected::Success(_)));
    }
}
