//! O5 on temporary files, from the log alone: when the session of one has ended, and it was not renamed before,
//! its name is gone.
use super::Violation;
use kfs_core::ids::{FileId, SessionId};
use kfs_core::meta::key::Key;
use kfs_core::meta::record::{Logged, Record};
use kfs_core::meta::state::State;
use kfs_core::wire::client_meta::Keep;
use std::collections::BTreeMap;

/// Checks the state that a log gives.
///
/// # Errors
/// The first temporary file that outlived its session.
pub fn check(records: &[Logged], state: &State) -> Result<(), Violation> {
    let mut temporary: BTreeMap<&Key, (SessionId, FileId)> = BTreeMap::new();
    for Logged { seq, by, record } in records {
        match record {
            Record::FileCreated(r) if r.keep == Keep::UntilSessionEnds => {
                temporary.insert(&r.key, (by.session, r.file));
            }
            Record::Renamed(r) => {
                temporary.remove(&r.from);
                temporary.remove(&r.to);
            }
            Record::FileRemoved(r) => {
                temporary.remove(&r.key);
            }
            Record::SessionEnded(r) => {
                let ended = temporary.extract_if(.., |_, (session, _)| *session == r.session);
                for (key, (session, file)) in ended {
                    let mut entries = state.entries(key.parent);
                    if entries.any(|(name, there)| (&name, there) == (&key.name, file)) {
                        let what = format!(
                            "{:?} is temporary of session {session}, which ended in record {seq}, and is there",
                            key.name
                        );
                        return Err(Violation::new("O5", "N1", what));
                    }
                }
            }
            // What sessions hold is theirs no more.
            Record::RollbackAccepted(_) => temporary.clear(),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::meta::tests::{begun, created, logged};
    use kfs_core::ids::SessionId;
    use kfs_core::meta::record::SessionEnded;
    use kfs_core::time::UnixNanos;

    fn temporary(name: &str, counter: u64) -> Record {
        match created(name, counter) {
            Record::FileCreated(mut r) => {
                r.keep = Keep::UntilSessionEnds;
                r.into()
            }
            other => other,
        }
    }
    fn ended(session: SessionId) -> Record {
        let time = UnixNanos(9);
        SessionEnded { session, time }.into()
    }

    #[test]
    fn a_temporary_file_that_outlives_its_session_is_seen() {
        let mut records = begun();
        records.push(temporary("t", 2));
        let before = logged(records.clone());
        let session = before[0].by.session;
        records.push(ended(session));
        let after = logged(records);
        let state = |records: &[Logged]| State::replay(records).expect("it fits");
        assert_eq!(check(&after, &state(&after)), Ok(()));
        // A state in which the end of the session took nothing away.
        let seen = check(&after, &state(&before)).unwrap_err();
        assert_eq!(seen.oracle, "O5", "{seen}");
    }

    #[test]
    fn a_file_made_to_stay_may_outlive_its_session() {
        let mut records = begun();
        records.push(created("f", 2));
        let session = logged(records.clone())[0].by.session;
        records.push(ended(session));
        let records = logged(records);
        let state = State::replay(&records).expect("it fits");
        assert_eq!(check(&records, &state), Ok(()));
    }
}
