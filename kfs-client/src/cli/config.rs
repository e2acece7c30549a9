//! `config show`: the settings that a daemon would have, each with where it comes from.
//!
//! The daemon's own flags, environment and file are read, by its own code, and nothing is started.
use super::failure::{Exit, Failure};
use super::screen::Screen;
use super::table::{Side, Table};
use clap::{Args, Subcommand, ValueEnum};
use kfs_server::config::shown::{Origin, Setting, of_chunk, of_meta};
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    /// Show what a daemon would be started with, as a file for its --config; with --origin, who says so
    ///
    /// A flag wins over the environment (KFS_LISTEN for --listen), that over the file, and that over the default.
    Show(Show),
}

#[derive(Args, Debug)]
pub(crate) struct Show {
    /// Which daemon
    #[arg(value_name = "DAEMON")]
    daemon: Daemon,
    /// The file that it is started with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say of each setting where it comes from
    #[arg(long)]
    origin: bool,
    /// Flags that it is started with, behind '--'
    #[arg(value_name = "FLAG", last = true)]
    flags: Vec<OsString>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Daemon {
    /// kfs-metaserver
    #[value(name = "metaserver")]
    Meta,
    /// kfs-chunkserver
    #[value(name = "chunkserver")]
    Chunk,
}

/// A setting, as JSON.
#[derive(Serialize, Debug)]
struct Shape<'a> {
    key: &'static str,
    value: Option<&'a str>,
    origin: &'static str,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

/// Shows them.
pub(crate) fn show(screen: &Screen, asked: Show) -> Result<Exit, Failure> {
    let Show {
        daemon,
        config,
        origin,
        mut flags,
    } = asked;
    if let Some(config) = config {
        flags.splice(0..0, ["--config".into(), config.into_os_string()]);
    }
    let settings = match daemon {
        Daemon::Meta => of_meta(flags)?,
        Daemon::Chunk => of_chunk(flags)?,
    };
    for setting in &settings {
        let (origin, place) = said(&setting.origin);
        screen.json(&Shape {
            key: setting.key,
            value: setting.value.as_deref(),
            origin,
            place,
        })?;
    }
    let lines = if origin {
        table(&settings).lines(screen.columns())
    } else {
        settings.iter().map(in_file).collect()
    };
    for line in lines {
        screen.line(line)?;
    }
    Ok(Exit::Done)
}

/// In a word, and which one it is of those that the word is for.
fn said(origin: &Origin) -> (&'static str, Option<String>) {
    match origin {
        Origin::Flag => ("flag", None),
        Origin::Environment(variable) => ("environment", Some(variable.clone())),
        Origin::File(path, line) => ("file", Some(format!("{}:{line}", path.display()))),
        Origin::Default => ("default", None),
        Origin::Missing => ("missing", None),
    }
}

fn table(settings: &[Setting]) -> Table {
    let mut table = Table::new(&[
        ("SETTING", Side::Left),
        ("VALUE", Side::Left),
        ("FROM", Side::Left),
    ]);
    for setting in settings {
        let (origin, place) = said(&setting.origin);
        table.row([
            setting.key.to_owned(),
            setting.value.clone().unwrap_or_else(|| "-".to_owned()),
            match place {
                Some(place) => format!("{origin} {place}"),
                None => origin.to_owned(),
            },
        ]);
    }
    table
}

/// As a line of a configuration file; what has no value, or no place there, is a remark.
fn in_file(setting: &Setting) -> String {
    let key = setting.key;
    match (&setting.value, &setting.origin) {
        (None, Origin::Missing) => format!("# {key}: has to be given"),
        (None, _) => format!("# {key}: none"),
        (Some(value), _) if key == "config" => format!("# {key}: {value}"),
        (Some(value), _) => format!("{key} = {}", quoted(value)),
    }
}

/// A basic string of TOML.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
