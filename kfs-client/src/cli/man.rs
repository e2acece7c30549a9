//! `man`: manual pages, made of the same help that the programs print.
use super::Arguments;
use super::failure::{Exit, Failure};
use super::screen::Screen;
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use kfs_core::wire::Status;
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Pages {
    /// A verb, as 'put' or 'log blame', or a daemon, as kfs-metaserver; kfs itself, if not given
    #[arg(value_name = "NAME", conflicts_with = "dir")]
    names: Vec<String>,
    /// Write all of them to this directory, a file each
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A page that was written, as JSON.
#[derive(Serialize, Debug)]
struct Shape<'a> {
    page: &'a str,
}

/// A program or a verb, under the name of its page.
struct Page {
    name: String,
    command: Command,
}

/// Prints a page, or writes them all.
pub(crate) fn man(screen: &Screen, asked: &Pages) -> Result<Exit, Failure> {
    let pages = pages();
    if let Some(dir) = &asked.dir {
        for page in pages {
            let path = dir.join(format!("{}.1", page.name));
            fs::write(&path, page.text()?).map_err(|error| {
                Failure::local(format!("cannot write {}", path.display()), &error)
            })?;
            let page = path.display().to_string();
            screen.json(&Shape { page: &page })?;
            screen.line(page)?;
        }
        return Ok(Exit::Done);
    }
    let name = asked.names.join("-");
    let is_asked = |page: &Page| {
        let of_verb = page.name.strip_prefix("kfs-");
        page.name == name || of_verb == Some(&name) || (name.is_empty() && page.name == "kfs")
    };
    let Some(page) = pages.iter().find(|page| is_asked(page)) else {
        let known: Vec<&str> = pages.iter().map(|page| &*page.name).collect();
        let what = format!("there is no page of '{}'", asked.names.join(" "));
        let help = format!("there are {}", known.join(", "));
        return Err(Failure::new(Status::NotFound, what).help(help));
    };
    io::stdout()
        .write_all(&page.text()?)
        .map_err(|error| Failure::stdout(&error))?;
    Ok(Exit::Done)
}

impl Page {
    fn text(&self) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        Man::new(self.command.clone())
            .source(concat!("kfs ", env!("CARGO_PKG_VERSION")))
            .manual("KFS")
            .render(&mut text)
            .map_err(|error| Failure::local("cannot make a page", &error))?;
        Ok(text)
    }
}

/// A page of each verb and of each program.
fn pages() -> Vec<Page> {
    let mut kfs = Arguments::command();
    // Gives verbs the flags that all of them take, and their whole names.
    kfs.build();
    let mut pages = Vec::new();
    add(&kfs, "kfs".to_owned(), &mut pages);
    #[cfg(feature = "embedded")]
    {
        use kfs_server::config::{ChunkFlags, CompactorFlags, MetaFlags};
        for command in [
            MetaFlags::command(),
            ChunkFlags::command(),
            CompactorFlags::command(),
        ] {
            let name = command.get_name().to_owned();
            pages.push(Page { name, command });
        }
    }
    pages
}

fn add(command: &Command, name: String, pages: &mut Vec<Page>) {
    for verb in command.get_subcommands() {
        if !verb.is_hide_set() && verb.get_name() != "help" {
            add(verb, format!("{name}-{}", verb.get_name()), pages);
        }
    }
    pages.push(Page {
        name,
        command: command.clone(),
    });
}
