//! `du`: what trees take, directory by directory, deepest first.
use super::failure::{Exit, Failure};
use super::list::note_failure;
use super::path::RemotePath;
use super::reach::Reach;
use super::screen::{Named, Screen};
use super::units::size;
use kfs_client::UsageOf;
use serde::Serialize;

/// In which words sizes are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sizes {
    /// In bytes.
    Bytes,
    /// `-h`: in the unit that fits.
    Short,
}

/// A directory, as JSON.
#[derive(Serialize, Debug)]
struct Shape {
    #[serde(flatten)]
    named: Named,
    depth: usize,
    bytes: u64,
    files: u64,
    directories: u64,
    chunks: u64,
    replica_bytes: u64,
    log_seq: u64,
}

impl Shape {
    fn new(of: &UsageOf) -> Self {
        let UsageOf {
            path,
            depth,
            usage,
            at,
        } = of;
        Self {
            named: Named::new(path),
            depth: *depth,
            bytes: usage.bytes,
            files: usage.files,
            directories: usage.directories,
            chunks: usage.chunks,
            replica_bytes: usage.replica_bytes,
            log_seq: at.0,
        }
    }
}

/// Shows what each path takes. Each is of one instant of its own, which is said at its end.
pub(crate) async fn du(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    depth: u32,
    sizes: Sizes,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let shown = du_one(reach, screen, path, depth, sizes).await;
        exit = note_failure(screen, shown, exit)?;
    }
    Ok(exit)
}

async fn du_one(
    reach: &Reach,
    screen: &Screen,
    path: &RemotePath,
    depth: u32,
    sizes: Sizes,
) -> Result<(), Failure> {
    let mut scan = reach.kfs.usage(path.bytes(), depth);
    let mut last = None;
    while let Some(of) = scan.next().await {
        let of = of?;
        screen.json(&Shape::new(&of))?;
        screen.line([line(&of, sizes).as_bytes(), &screen.name(&of.path)].concat())?;
        last = Some(of);
    }
    if let Some(of) = last {
        screen.flush()?;
        screen.note(said(&of, &String::from_utf8_lossy(&screen.name(&of.path))));
    }
    Ok(())
}

/// The size, and a tab, as everywhere: what comes behind it is the path, whatever is in that.
fn line(of: &UsageOf, sizes: Sizes) -> String {
    match sizes {
        Sizes::Bytes => format!("{}\t", of.usage.bytes),
        Sizes::Short => format!("{}\t", size(of.usage.bytes)),
    }
}

/// What is not in a line, of all of it.
fn said(of: &UsageOf, path: &str) -> String {
    let usage = &of.usage;
    format!(
        "{path}: {} files, {} directories, {} chunks; replicas take {}; as of record {}",
        usage.files,
        usage.directories,
        usage.chunks,
        size(usage.replica_bytes),
        of.at
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::ids::LogSeq;
    use kfs_core::wire::client_meta::Usage;

    #[test]
    fn a_line_is_a_size_and_a_path_and_the_last_word_says_the_rest() {
        let of = UsageOf {
            path: b"/a/b".to_vec(),
            depth: 1,
            usage: Usage {
                bytes: 3 << 29,
                files: 2,
                directories: 1,
                chunks: 25,
                replica_bytes: 9 << 29,
            },
            at: LogSeq(77),
        };
        assert_eq!(line(&of, Sizes::Bytes), "1610612736\t");
        assert_eq!(line(&of, Sizes::Short), "1.5 GiB\t");
        assert_eq!(
            said(&of, "/a/b"),
            "/a/b: 2 files, 1 directories, 25 chunks; replicas take 4.5 GiB; as of record 77"
        );
    }
}
