//! O6 on a whole run: the entries of the meta server's tree are those of the reference namespace. (That the
//! tree is an ordered map is tested beside it, against one, over random changes and page walks.)
//!
//! What the reference is certain of must be there, with its kind and id; what it is not certain of may be; and
//! nothing else is. It never looks below a name that is uncertain.
use super::Violation;
use crate::model::{Expected, Model, Node};
use kfs_core::ids::FileId;
use kfs_core::meta::state::State;
use std::collections::BTreeMap;

/// How much was compared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Compared {
    /// Entries that had to be as they are.
    pub certain: u64,
    /// Entries that may be there.
    pub uncertain: u64,
}

/// Compares the tree of a state with the reference namespace, brought to the state's place in the log.
///
/// # Errors
/// The first entry, by its path, that one has and the other cannot have.
pub fn check(state: &State, reference: &Model) -> Result<Compared, Violation> {
    let mut reference = reference.clone();
    reference.set_at(state.seq());
    let Expected::Success(root) = reference.find(b"") else {
        unreachable!("the root is always there");
    };
    let mut compared = Compared::default();
    let mut open: Vec<(Vec<u8>, Node, FileId)> = vec![(Vec::new(), root, FileId::ROOT)];
    while let Some((path, node, dir)) = open.pop() {
        let Some(listing) = reference.list(node) else {
            continue;
        };
        let entries = state.entries(dir);
        let there: BTreeMap<Vec<u8>, FileId> = entries
            .map(|(name, file)| (name.as_bytes().to_vec(), file))
            .collect();
        let at = |name: &[u8]| [path.as_slice(), b"/", name].concat();
        let broken = |name: &[u8], what: String| {
            let path = String::from_utf8_lossy(&at(name)).into_owned();
            Violation::new("O6", "N1", format!("state {}, {path}: {what}", state.seq()))
        };
        for (name, file) in &there {
            if listing.uncertain.contains(name) {
                compared.uncertain += 1;
            } else if !listing.certain.contains_key(name) {
                return Err(broken(name, format!("the tree has {file}; nothing is due")));
            }
        }
        for (name, node) in &listing.certain {
            compared.certain += 1;
            let due = reference.kind(*node);
            let Some(file) = there.get(name.as_slice()) else {
                return Err(broken(
                    name,
                    format!("a {due:?} is due; the tree has nothing"),
                ));
            };
            let kind = state.attrs(*file).map(|attrs| attrs.kind);
            let id = reference.learn(*node, Some(*file));
            if kind != Some(due) || id != Some(*file) {
                let what = format!("{due:?} {id:?} is due; the tree has {kind:?} {file}");
                return Err(broken(name, what));
            }
            open.push((at(name), *node, *file));
        }
    }
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Change;
    use crate::oracle::meta::tests::{begun, created, file_id, removed, state};
    use kfs_core::wire::client_meta::{Parents, RenameMode};

    fn create(path: &str) -> Change {
        Change::Create {
            path: path.into(),
            held_by: None,
        }
    }
    fn model() -> Model {
        let mut model = Model::new(BTreeMap::new());
        model.apply(&create("a"), Some(file_id(2)));
        model.apply(&create("b"), None);
        model
    }
    fn tree(more: &[(&str, u64)]) -> State {
        let mut records = begun();
        records.extend(more.iter().map(|(name, id)| created(name, *id)));
        state(records)
    }

    #[test]
    fn a_name_too_many_one_too_few_and_another_id_are_seen() {
        assert_eq!(
            check(&tree(&[("a", 2), ("b", 3)]), &model()),
            Ok(Compared {
                certain: 2,
                uncertain: 0
            })
        );
        for wrong in [
            &[("a", 2)][..],
            &[("a", 2), ("b", 3), ("c", 4)],
            &[("b", 2), ("a", 3)],
        ] {
            let seen = check(&tree(wrong), &model()).unwrap_err();
            assert_eq!(seen.oracle, "O6", "{seen}");
        }
        let mut gone = begun();
        gone.extend([created("a", 2), created("b", 3), removed("b")]);
        assert!(check(&state(gone), &model()).is_err());
    }

    #[test]
    fn a_file_where_a_directory_is_due_is_seen() {
        let mut model = model();
        let mkdir = Change::Mkdir {
            path: b"d".to_vec(),
            parents: Parents::MustExist,
        };
        model.apply(&mkdir, None);
        assert!(check(&tree(&[("a", 2), ("b", 3), ("d", 4)]), &model).is_err());
    }

    #[test]
    fn an_uncertain_name_may_be_there_or_not_and_only_that() {
        let mut model = model();
        model.doubt(&Change::Rename {
            from: b"b".to_vec(),
            to: b"c".to_vec(),
            mode: RenameMode::Replace,
        });
        for fine in [&[("a", 2), ("b", 3)][..], &[("a", 2), ("c", 3)]] {
            assert!(check(&tree(fine), &model).is_ok(), "{fine:?}");
        }
        assert!(check(&tree(&[("b", 3)]), &model).is_err());
        assert!(check(&tree(&[("a", 2), ("e", 3)]), &model).is_err());
    }
}
