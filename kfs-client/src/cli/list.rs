//! `ls` and `stat`.
use super::failure::{Exit, Failure};
use super::path::{RemotePath, shown};
use super::reach::Reach;
use super::screen::{Described, Form, Screen, kind};
use super::units::{date, size};
use kfs_client::Kfs;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, Kind};

/// How much is said of each entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Its name.
    Names,
    /// `-l`.
    Long,
}

/// How far down is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Depth {
    /// One directory.
    Directory,
    /// `-R`.
    Tree,
}

/// Lists each path: a file by itself, a directory's entries in byte order of their names.
pub(crate) async fn ls(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    look: Look,
    depth: Depth,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let headed = depth == Depth::Tree || paths.len() > 1;
    let mut first = true;
    for path in paths {
        let listed = ls_one(&reach.kfs, screen, path, look, depth, headed, &mut first).await;
        exit = note_failure(screen, listed, exit)?;
    }
    Ok(exit)
}

async fn ls_one(
    kfs: &Kfs,
    screen: &Screen,
    path: &RemotePath,
    look: Look,
    depth: Depth,
    headed: bool,
    first: &mut bool,
) -> Result<(), Failure> {
    let attrs = kfs.stat(path.bytes()).await?;
    if attrs.kind == Kind::File {
        *first = false;
        screen.json(&Described::new(path.bytes(), &attrs))?;
        return entry(screen, path.bytes(), &attrs, look);
    }
    let mut pending = vec![path.clone()];
    while let Some(directory) = pending.pop() {
        if headed {
            let gap: &[u8] = if *first { b"" } else { b"\n" };
            screen.line([gap, &screen.name(directory.bytes()), b":"].concat())?;
        }
        *first = false;
        let columns = screen
            .columns()
            .filter(|_| look == Look::Names && screen.form == Form::Text);
        let (mut below, mut names) = (Vec::new(), Vec::new());
        let mut entries = kfs.list(directory.bytes());
        while let Some(found) = entries.next().await {
            let found = match found {
                // A directory that went away while the tree was walked is not an error of the walk.
                Err(error) if error.status == Status::NotFound && directory != *path => break,
                found => found?,
            };
            let full = directory.join(&found.name);
            screen.json(&Described::new(full.bytes(), &found.attrs))?;
            match columns {
                Some(_) => names.push(shown(&found.name)),
                None => entry(screen, &found.name, &found.attrs, look)?,
            }
            if depth == Depth::Tree && found.attrs.kind == Kind::Directory {
                below.push(full);
            }
        }
        if let Some(columns) = columns {
            for line in in_columns(&names, columns) {
                screen.line(line)?;
            }
        }
        pending.extend(below.into_iter().rev());
    }
    Ok(())
}

/// Shows one entry of a directory.
pub(crate) fn entry(
    screen: &Screen,
    name: &[u8],
    attrs: &Attrs,
    look: Look,
) -> Result<(), Failure> {
    let name = screen.name(name);
    match look {
        Look::Names => screen.line(name),
        Look::Long => screen.line([long(attrs).as_bytes(), &name].concat()),
    }
}

/// `-rw-r--r-- 3 1000 1000 123 2026-01-31 23:59:59Z `: the second column is the number of replicas.
fn long(attrs: &Attrs) -> String {
    let replicas = if attrs.kind == Kind::File {
        attrs.replication.to_string()
    } else {
        "-".into()
    };
    format!(
        "{}{} {replicas:>2} {:>5} {:>5} {:>14} {} ",
        if attrs.kind == Kind::Directory {
            'd'
        } else {
            '-'
        },
        permissions(attrs.mode),
        attrs.uid,
        attrs.gid,
        attrs.size,
        date(attrs.mtime)
    )
}

fn permissions(mode: u32) -> String {
    let special = [(0o4000, 's'), (0o2000, 's'), (0o1000, 't')];
    let mut text = String::with_capacity(9);
    for (who, (bit, letter)) in special.into_iter().enumerate() {
        let bits = mode >> (6 - 3 * who);
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & bit != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// Lines that hold the names column by column, as narrow as they come.
fn in_columns(names: &[String], width: usize) -> Vec<String> {
    let widest = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        + 2;
    let across = (width / widest).max(1);
    let rows = names.len().div_ceil(across);
    let line = |row: usize| {
        let mut line = String::new();
        for name in names.iter().skip(row).step_by(rows) {
            line.push_str(name);
            line.extend(std::iter::repeat_n(' ', widest - name.chars().count()));
        }
        line.trim_end().to_owned()
    };
    (0..rows).map(line).collect()
}

/// Shows all attributes of each path.
pub(crate) async fn stat(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let shown = stat_one(&reach.kfs, screen, path).await;
        exit = note_failure(screen, shown, exit)?;
    }
    Ok(exit)
}

async fn stat_one(kfs: &Kfs, screen: &Screen, path: &RemotePath) -> Result<(), Failure> {
    let attrs = kfs.stat(path.bytes()).await?;
    show(screen, path, &attrs)
}

/// Shows all attributes.
pub(crate) fn show(screen: &Screen, path: &RemotePath, attrs: &Attrs) -> Result<(), Failure> {
    screen.json(&Described::new(path.bytes(), attrs))?;
    screen.line([b"    path: ", &screen.name(path.bytes())[..]].concat())?;
    screen.line(format!("    kind: {}", kind(attrs.kind)))?;
    match attrs.kind {
        Kind::File => {
            screen.line(format!(
                "    size: {} bytes ({})",
                attrs.size,
                size(attrs.size)
            ))?;
            screen.line(format!("replicas: {} of each chunk", attrs.replication))?;
        }
        Kind::Directory => screen.line(format!(" entries: {}", attrs.size))?,
    }
    screen.line(format!(
        "    mode: {:04o} ({})",
        attrs.mode,
        permissions(attrs.mode)
    ))?;
    screen.line(format!("   owner: {}:{}", attrs.uid, attrs.gid))?;
    screen.line(format!("   links: {}", attrs.links))?;
    screen.line(format!("      id: {}", attrs.file))?;
    for (what, time) in [
        ("modified", attrs.mtime),
        (" changed", attrs.ctime),
        (" created", attrs.crtime),
    ] {
        screen.line(format!(
            "{what}: {}.{:09}Z",
            date(time).trim_end_matches('Z'),
            time.0 % 1_000_000_000
        ))?;
    }
    Ok(())
}

/// A command over several paths goes on after a failure, says it, and ends with the first one's code.
/// Fails only if nobody is left to print for.
pub(crate) fn note_failure(
    screen: &Screen,
    outcome: Result<(), Failure>,
    exit: Exit,
) -> Result<Exit, Failure> {
    match outcome {
        Ok(()) => Ok(exit),
        Err(failure) if failure.what.is_empty() => Err(failure),
        Err(failure) => {
            screen.flush()?;
            screen.failure(&failure);
            Ok(if exit == Exit::Done {
                failure.exit
            } else {
                exit
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_read_as_everywhere() {
        for (mode, text) in [
            (0o644, "rw-r--r--"),
            (0o755, "rwxr-xr-x"),
            (0o4711, "rws--x--x"),
            (0o1777, "rwxrwxrwt"),
            (0o2640, "rw-r-S---"),
        ] {
            assert_eq!(permissions(mode), text);
        }
    }

    #[test]
    fn columns_hold_every_name_once_and_fit() {
        let names: Vec<String> = (0..23)
            .map(|i| "n".repeat(i % 7 + 1) + &i.to_string())
            .collect();
        for width in [1, 10, 40, 80, 1_000] {
            let lines = in_columns(&names, width);
            assert_eq!(
                lines
                    .iter()
                    .flat_map(|line| line.split_whitespace())
                    .count(),
                names.len(),
                "width {width}"
            );
            assert!(
                width < 10 || lines.iter().all(|line| line.len() <= width),
                "width {width}"
            );
        }
        assert!(in_columns(&[], 80).is_empty());
    }
}
