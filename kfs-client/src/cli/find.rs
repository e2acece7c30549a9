//! `find`: what below some paths has a name, a kind or a size.
use super::failure::{Exit, Failure};
use super::glob::Glob;
use super::list::note_failure;
use super::path::RemotePath;
use super::reach::Reach;
use super::remote;
use super::screen::{Described, Screen};
use super::units::parse_size;
use super::walk::{Step, Walk};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use kfs_core::wire::client_meta::Kind;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

#[derive(Args, Debug)]
pub(crate) struct Find {
    #[arg(value_name = "PATH", value_parser = remote(), default_value = "/")]
    pub(crate) paths: Vec<RemotePath>,
    /// Only what has a name like this, as in '*.log'; '*', '?', '[a-z]' and '[!a-z]' mean what they do in a shell
    #[arg(long, value_name = "GLOB", value_parser = glob())]
    name: Option<Glob>,
    /// Only files, or only directories
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<OfKind>,
    /// Only files of more than so many bytes, or, with '-', of fewer, as in +1GiB or -1MiB; without a sign, of so many
    #[arg(long, value_name = "[+|-]BYTES", value_parser = parse_sizes, allow_hyphen_values = true)]
    size: Option<Sizes>,
    /// Only so far below each path
    #[arg(long, value_name = "N")]
    max_depth: Option<u32>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum OfKind {
    /// Files
    #[value(name = "f", alias = "file")]
    File,
    /// Directories
    #[value(name = "d", alias = "directory")]
    Directory,
}

/// Which sizes are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sizes {
    Over(u64),
    Under(u64),
    Exactly(u64),
}

fn glob() -> impl TypedValueParser<Value = Glob> {
    OsStringValueParser::new().try_map(|pattern: OsString| Glob::parse(pattern.as_bytes()))
}

fn parse_sizes(text: &str) -> Result<Sizes, String> {
    match text.split_at_checked(1) {
        Some(("+", bytes)) => parse_size(bytes).map(Sizes::Over),
        Some(("-", bytes)) => parse_size(bytes).map(Sizes::Under),
        _ => parse_size(text).map(Sizes::Exactly),
    }
}

impl Find {
    fn means(&self, step: &Step) -> bool {
        let (name, attrs) = (step.path.name().unwrap_or(b"/"), &step.attrs);
        let named = self.name.as_ref().is_none_or(|glob| glob.matches(name));
        let kind = self.kind.is_none_or(|kind| match kind {
            OfKind::File => attrs.kind == Kind::File,
            OfKind::Directory => attrs.kind == Kind::Directory,
        });
        let size = self.size.is_none_or(|sizes| {
            attrs.kind == Kind::File
                && match sizes {
                    Sizes::Over(bytes) => attrs.size > bytes,
                    Sizes::Under(bytes) => attrs.size < bytes,
                    Sizes::Exactly(bytes) => attrs.size == bytes,
                }
        });
        named && kind && size
    }
}

/// Shows what was meant, as it is come by.
pub(crate) async fn find(reach: &Reach, screen: &Screen, asked: &Find) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in &asked.paths {
        let found = find_below(reach, screen, path, asked).await;
        exit = note_failure(screen, found, exit)?;
    }
    Ok(exit)
}

async fn find_below(
    reach: &Reach,
    screen: &Screen,
    path: &RemotePath,
    asked: &Find,
) -> Result<(), Failure> {
    let mut walk = Walk::new(&reach.kfs, path, asked.max_depth.unwrap_or(u32::MAX));
    while let Some(step) = walk.next().await {
        let step = step?;
        if asked.means(&step) {
            screen.json(&Described::new(step.path.bytes(), &step.attrs))?;
            screen.line(screen.name(step.path.bytes()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_says_on_which_side_of_a_size() {
        assert_eq!(parse_sizes("+1KiB"), Ok(Sizes::Over(1_024)));
        assert_eq!(parse_sizes("-5"), Ok(Sizes::Under(5)));
        assert_eq!(parse_sizes("5"), Ok(Sizes::Exactly(5)));
        for wrong in ["", "+", "-", "--1", "+x", "\u{fc}"] {
            assert!(parse_sizes(wrong).is_err(), "{wrong}");
        }
    }
}
