//! `kfs log cat`: the records of a meta server's log.
use super::super::failure::{Exit, Failure};
use super::super::screen::Screen;
use super::{MetaDir, identity};
use kfs_core::identity::Owner;
use kfs_core::meta::record::Logged;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize, Debug)]
struct Shape {
    seq: u64,
    session: Option<u64>,
    request: Option<u64>,
    record: &'static str,
    version: u16,
    /// As the code has it, for people.
    text: String,
}

/// Prints every record there is, oldest first.
pub(crate) fn cat(dir: &Path, screen: &Screen) -> Result<Exit, Failure> {
    let identity = identity(dir)?;
    if identity.owner == Owner::Chunk {
        let what = format!("{} is a chunkserver's: it has no log", dir.display());
        return Err(Failure::usage(what));
    }
    let found = MetaDir::open(dir, identity)?;
    let mut failed = None;
    let read = found.read_log(&mut |logged| {
        show(&logged, screen).map_err(|failure| {
            failed = Some(failure);
            "it could not be printed".to_owned()
        })
    });
    if let Some(failure) = failed {
        return Err(failure);
    }
    let end = read.map_err(Failure::from)?;
    if end.is_some_and(|end| end.torn) {
        screen.note("the log ends in a write that was cut: nothing of it was acknowledged");
    }
    Ok(Exit::Done)
}

/// Prints a record.
pub(super) fn show(logged: &Logged, screen: &Screen) -> Result<(), Failure> {
    let asked = logged.by.session.0 > 0;
    let number = |number: u64| asked.then_some(number);
    let name = logged.record.name();
    let text = format!("{:?}", logged.record);
    // As it stands in the code it has its name twice.
    let body = text
        .strip_prefix(name)
        .and_then(|text| text.strip_prefix('('));
    let body = body.and_then(|text| text.strip_suffix(')'));
    let text = body.unwrap_or(&text).to_owned();
    let by = if asked {
        format!("{}/{}", logged.by.session, logged.by.request)
    } else {
        "-".into()
    };
    screen.line(format!("{:>10}  {by:<20}  {text}", logged.seq.0))?;
    screen.json(&Shape {
        seq: logged.seq.0,
        session: number(logged.by.session.0),
        request: number(logged.by.request.0),
        record: name,
        version: logged.record.code().1,
        text,
    })
}
