//! `head` and `tail`: the beginning and the end of files, in bytes or in lines, as on unix.
//!
//! Of a large file no more is read than is shown, but for the lines of an end, which are looked for backwards.
use super::failure::{Exit, Failure};
use super::list::note_failure;
use super::path::RemotePath;
use super::pieces::Sink;
use super::reach::Reach;
use super::remote;
use super::screen::Screen;
use super::transfer::{cat, download};
use super::units::parse_size;
use bytes::Bytes;
use clap::Args;
use indicatif::ProgressBar;
use kfs_client::Reader;
use kfs_core::limits::FRAME_BODY_MAX;
use kfs_core::wire::Status;
use std::io;
use std::time::Duration;

/// How often `tail -f` looks whether there is more.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// How much of each file.
#[derive(Args, Debug)]
pub(crate) struct Amount {
    /// So many bytes
    #[arg(short = 'c', long, value_name = "BYTES", value_parser = parse_size, conflicts_with = "lines")]
    bytes: Option<u64>,
    /// So many lines
    #[arg(short = 'n', long, value_name = "N", default_value = "10")]
    lines: u64,
}

#[derive(Args, Debug)]
pub(crate) struct Head {
    #[command(flatten)]
    amount: Amount,
    #[arg(value_name = "PATH", value_parser = remote(), required = true)]
    pub(crate) paths: Vec<RemotePath>,
}

#[derive(Args, Debug)]
pub(crate) struct Tail {
    #[command(flatten)]
    amount: Amount,
    /// Go on with what is added and synced, until the file is removed or replaced
    #[arg(short, long)]
    follow: bool,
    #[arg(value_name = "PATH", value_parser = remote(), required = true)]
    pub(crate) paths: Vec<RemotePath>,
}

/// Writes the beginning of each file to standard output.
pub(crate) async fn head(reach: &Reach, screen: &Screen, asked: &Head) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for (nth, path) in asked.paths.iter().enumerate() {
        let shown = head_one(
            reach,
            screen,
            path,
            &asked.amount,
            Heading::of(nth, &asked.paths),
        );
        exit = note_failure(screen, shown.await, exit)?;
    }
    Ok(exit)
}

async fn head_one(
    reach: &Reach,
    screen: &Screen,
    path: &RemotePath,
    amount: &Amount,
    heading: Heading,
) -> Result<(), Failure> {
    let reader = reach.kfs.open(path.bytes()).await?;
    heading.say(screen, path)?;
    if amount.bytes.is_some() {
        return cat(reach, path, 0, amount.bytes).await.map(|_| ());
    }
    let mut left = amount.lines;
    let sink = Sink::new(io::stdout());
    let mut stream = reader.stream(0, reader.attrs().size);
    while left > 0 {
        let Some(chunked) = stream.next().await else {
            break;
        };
        let parts = chunked?.parts.into_iter();
        let parts = parts.map(|part| {
            let (len, lines) = lines_from(&part, left);
            left -= lines;
            part.slice(..len)
        });
        if sink.write(parts.collect()).await.is_err() {
            break;
        }
    }
    sink.end().await.map_err(|error| Failure::stdout(&error))?;
    Ok(())
}

/// How many bytes the first so many lines are, as far as they are here, and how many of them end here.
fn lines_from(bytes: &[u8], lines: u64) -> (usize, u64) {
    let mut ended = 0;
    if lines == 0 {
        return (0, 0);
    }
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        ended += 1;
        if ended == lines {
            return (at + 1, ended);
        }
    }
    (bytes.len(), ended)
}

/// Writes the end of each file to standard output.
pub(crate) async fn tail(reach: &Reach, screen: &Screen, asked: &Tail) -> Result<Exit, Failure> {
    if asked.follow && asked.paths.len() > 1 {
        return Err(Failure::usage("'kfs tail -f' follows one file"));
    }
    let mut exit = Exit::Done;
    for (nth, path) in asked.paths.iter().enumerate() {
        let shown = tail_one(reach, screen, path, asked, Heading::of(nth, &asked.paths));
        exit = note_failure(screen, shown.await, exit)?;
    }
    Ok(exit)
}

async fn tail_one(
    reach: &Reach,
    screen: &Screen,
    path: &RemotePath,
    asked: &Tail,
    heading: Heading,
) -> Result<(), Failure> {
    let reader = reach.kfs.open(path.bytes()).await?;
    heading.say(screen, path)?;
    let from = match asked.amount.bytes {
        Some(bytes) => reader.attrs().size.saturating_sub(bytes),
        None => last_lines(&reader, asked.amount.lines, path).await?,
    };
    rest(&reader, from, path).await?;
    if asked.follow {
        return follow(reach, screen, path, reader).await;
    }
    Ok(())
}

/// Writes what a file has from there on.
async fn rest(reader: &Reader, from: u64, path: &RemotePath) -> Result<(), Failure> {
    let len = reader.attrs().size.saturating_sub(from);
    let bar = ProgressBar::hidden();
    download(reader, from, len, path, io::stdout(), &bar, Failure::stdout)
        .await
        .map(|_| ())
}

/// Where the last so many lines begin. A file that ends in the middle of a line has that as its last one.
async fn last_lines(reader: &Reader, lines: u64, path: &RemotePath) -> Result<u64, Failure> {
    let (size, piece) = (reader.attrs().size, FRAME_BODY_MAX as u64);
    if lines == 0 {
        return Ok(size);
    }
    // What ends the last line begins no other one.
    let mut left = lines;
    let mut end = size.saturating_sub(1);
    while end > 0 {
        let begin = (end - 1) / piece * piece;
        let len = usize::try_from(end - begin).expect("a piece fits in memory");
        let read = reader.read_at(begin, len).await?;
        if read.len() != len {
            let what = format!("{} ended in the middle of a read", path.shown());
            return Err(Failure::new(Status::Corrupt, what));
        }
        let mut part_end = end;
        for part in read.parts.iter().rev() {
            let part_begin = part_end - part.len() as u64;
            match lines_back(part, left) {
                Ok(at) => return Ok(part_begin + at as u64),
                Err(ended) => left -= ended,
            }
            part_end = part_begin;
        }
        end = begin;
    }
    Ok(0)
}

/// Behind which byte the last so many lines begin; or, if they begin before these bytes, how many end in them.
fn lines_back(bytes: &Bytes, lines: u64) -> Result<usize, u64> {
    let mut ended = 0;
    for (at, _) in bytes.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
        ended += 1;
        if ended == lines {
            return Ok(at + 1);
        }
    }
    Err(ended)
}

/// Goes on with what is added, until somebody interrupts it or the file is no longer there.
async fn follow(
    reach: &Reach,
    screen: &Screen,
    path: &RemotePath,
    mut reader: Reader,
) -> Result<(), Failure> {
    let file = reader.attrs().file;
    let gone = |how: &str| {
        screen.note(format!(
            "{} was {how}: nothing more is added to it",
            path.shown()
        ));
        Ok(())
    };
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let found = match reach.kfs.stat(path.bytes()).await {
            Err(error) if error.status == Status::NotFound => return gone("removed"),
            found => found?,
        };
        if found.file != file {
            return gone("replaced");
        }
        let from = reader.attrs().size;
        if found.size <= from {
            continue;
        }
        reader = match reach.kfs.open(path.bytes()).await {
            Err(error) if error.status == Status::NotFound => return gone("removed"),
            reader => reader?,
        };
        if reader.attrs().file != file {
            return gone("replaced");
        }
        rest(&reader, from, path).await?;
    }
}

/// What stands above a file when there are several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heading {
    None,
    First,
    Further,
}

impl Heading {
    const fn of(nth: usize, paths: &[RemotePath]) -> Self {
        match (paths.len(), nth) {
            (1, _) => Self::None,
            (_, 0) => Self::First,
            _ => Self::Further,
        }
    }

    /// Left out with `-q` and with `--json`, which does not change what is in files.
    fn say(self, screen: &Screen, path: &RemotePath) -> Result<(), Failure> {
        if self == Self::None || !screen.has_headings() {
            return Ok(());
        }
        let gap: &[u8] = if self == Self::Further { b"\n" } else { b"" };
        let name = screen.name(path.bytes());
        screen.line([gap, b"==> ", &name[..], b" <=="].concat())?;
        // What comes next is written past it.
        screen.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_either_end_and_no_byte_is_between() {
        let text = Bytes::from_static(b"a\nbb\n\nccc");
        assert_eq!(lines_from(&text, 0), (0, 0));
        assert_eq!(lines_from(&text, 1), (2, 1));
        assert_eq!(lines_from(&text, 3), (6, 3));
        assert_eq!(lines_from(&text, 4), (9, 3));
        assert_eq!(lines_back(&text, 1), Ok(6));
        assert_eq!(lines_back(&text, 2), Ok(5));
        assert_eq!(lines_back(&text, 3), Ok(2));
        assert_eq!(lines_back(&text, 4), Err(3));
    }
}
