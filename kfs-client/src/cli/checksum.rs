//! `checksum`: the SHA-256 of what is in files, in the lines that `sha256sum` prints and checks.
//!
//! It is made here, of bytes that were verified on their way: the cluster keeps other sums (Adler-32, block by block).
use super::failure::{Exit, Failure};
use super::list::note_failure;
use super::path::RemotePath;
use super::reach::Reach;
use super::screen::{Named, Screen};
use super::transfer::download;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io;

/// A file, as JSON.
#[derive(Serialize, Debug)]
struct Shape {
    #[serde(flatten)]
    named: Named,
    sha256: String,
    bytes: u64,
}

/// Sums each file.
pub(crate) async fn checksum(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let summed = checksum_one(reach, screen, path).await;
        exit = note_failure(screen, summed, exit)?;
    }
    Ok(exit)
}

async fn checksum_one(reach: &Reach, screen: &Screen, path: &RemotePath) -> Result<(), Failure> {
    let reader = reach.kfs.open(path.bytes()).await?;
    let size = reader.attrs().size;
    let bar = screen.progress(Some(size));
    let sum = Summing::default();
    let failed = |error: &io::Error| Failure::local("cannot sum", error);
    let (sum, bytes) = download(&reader, 0, size, path, sum, &bar, failed).await?;
    bar.finish_and_clear();
    let sha256 = sum.hex();
    screen.line(line(&sha256, path.bytes(), |name| screen.name(name)))?;
    screen.json(&Shape {
        named: Named::new(path.bytes()),
        sha256,
        bytes,
    })
}

/// As `sha256sum` has it: a name that would break the line is escaped, and the line begins with a backslash.
fn line(sha256: &str, path: &[u8], shown: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            byte => escaped.push(*byte),
        }
    }
    let mark: &[u8] = if escaped == path { b"" } else { b"\\" };
    [mark, sha256.as_bytes(), b"  ", &shown(&escaped)].concat()
}

/// A SHA-256 of what is written to it.
#[derive(Default, Debug)]
pub(crate) struct Summing(Sha256);

impl Summing {
    pub(crate) fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

impl io::Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_sum_is_that_of_the_standard() {
        let mut sum = Summing::default();
        sum.write_all(b"ab").unwrap();
        sum.write_all(b"c").unwrap();
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sum.hex(), abc);
    }

    #[test]
    fn a_name_that_would_break_the_line_is_escaped_as_sha256sum_does() {
        let line = |path: &[u8]| line("5a", path, <[u8]>::to_vec);
        assert_eq!(line(b"/a b\xff"), b"5a  /a b\xff");
        assert_eq!(line(b"/a\nb\\c\r"), b"\\5a  /a\\nb\\\\c\\r");
    }
}
