//! What the command says: results on standard output, notes and progress on standard error.
//!
//! With `--json` every result is one line of JSON; the structs here and in the verbs are its schema.
use super::failure::Failure;
use super::path::shown;
use base64::Engine;
use indicatif::{ProgressBar, ProgressStyle};
use kfs_core::wire::client_meta::{Attrs, Kind};
use serde::Serialize;
use std::cell::RefCell;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// Lines of JSON.
    Json,
}

/// Whether notes and progress are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chatter {
    /// They are.
    Shown,
    /// `-q`.
    Quiet,
}

/// Standard output and standard error of one command.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) form: Form,
    chatter: Chatter,
    out: RefCell<BufWriter<Stdout>>,
    out_is_terminal: bool,
    progress_is_seen: bool,
}

impl Screen {
    pub(crate) fn new(form: Form, chatter: Chatter) -> Self {
        let seen = form == Form::Text && chatter == Chatter::Shown && io::stderr().is_terminal();
        Self {
            form,
            chatter,
            out: RefCell::new(BufWriter::with_capacity(64 << 10, io::stdout())),
            out_is_terminal: io::stdout().is_terminal(),
            progress_is_seen: seen,
        }
    }

    /// A line of text; in JSON form nothing, there [`Screen::json`] speaks.
    pub(crate) fn line(&self, text: impl AsRef<[u8]>) -> Result<(), Failure> {
        if self.form == Form::Json {
            return Ok(());
        }
        let mut out = self.out.borrow_mut();
        let written = out
            .write_all(text.as_ref())
            .and_then(|()| out.write_all(b"\n"));
        written
            .and_then(|()| {
                if self.out_is_terminal {
                    out.flush()
                } else {
                    Ok(())
                }
            })
            .map_err(|e| Failure::stdout(&e))
    }

    /// A line of JSON; in text form nothing.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        if self.form == Form::Text {
            return Ok(());
        }
        let mut line = serde_json::to_vec(value).expect("what we print has a JSON form");
        line.push(b'\n');
        self.out
            .borrow_mut()
            .write_all(&line)
            .map_err(|e| Failure::stdout(&e))
    }

    /// Hands everything on that was said so far.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        self.out
            .borrow_mut()
            .flush()
            .map_err(|e| Failure::stdout(&e))
    }

    /// A remark beside the result, on standard error.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if self.form == Form::Text && self.chatter == Chatter::Shown {
            // If standard error is closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "{}", text.as_ref());
        }
    }

    /// Whether what is printed of several files is told apart by lines between them.
    pub(crate) fn has_headings(&self) -> bool {
        self.form == Form::Text && self.chatter == Chatter::Shown
    }

    /// A failure, on standard error, in the form the command speaks.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.what.is_empty() {
            return;
        }
        let text = if self.form == Form::Json {
            failure.json()
        } else {
            failure.text()
        };
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// A name or path as it is printed: escaped on a terminal, as it is in a pipe.
    pub(crate) fn name(&self, bytes: &[u8]) -> Vec<u8> {
        if self.out_is_terminal {
            shown(bytes).into_bytes()
        } else {
            bytes.to_vec()
        }
    }

    /// Columns of the terminal that standard output is, if it is one.
    pub(crate) fn columns(&self) -> Option<usize> {
        if !self.out_is_terminal {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    }

    /// A bar over so many bytes (none: unknown), seen only by a person at a terminal.
    pub(crate) fn progress(&self, bytes: Option<u64>) -> ProgressBar {
        if !self.progress_is_seen {
            return ProgressBar::hidden();
        }
        let (bar, look) = match bytes {
            Some(bytes) => (
                ProgressBar::new(bytes),
                "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
            ),
            None => (
                ProgressBar::no_length(),
                "{spinner} {bytes} {bytes_per_sec}",
            ),
        };
        bar.set_style(ProgressStyle::with_template(look).expect("the template is well formed"));
        bar
    }

    /// What is being done at the moment, seen only by a person at a terminal.
    pub(crate) fn activity(&self) -> ProgressBar {
        if !self.progress_is_seen {
            return ProgressBar::hidden();
        }
        let style =
            ProgressStyle::with_template("{spinner} {msg}").expect("the template is well formed");
        ProgressBar::new_spinner().with_style(style)
    }
}

/// A path, and the name at its end, as JSON gives them: `…_b64` when they are not UTF-8.
#[derive(Serialize, Debug, Default)]
pub(crate) struct Named {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_b64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_b64: Option<String>,
}

impl Named {
    pub(crate) fn new(path: &[u8]) -> Self {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        let (path, path_b64) = text_or_base64(path);
        let (name, name_b64) = text_or_base64(name);
        Self {
            path,
            path_b64,
            name,
            name_b64,
        }
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (
            None,
            Some(base64::engine::general_purpose::STANDARD.encode(bytes)),
        ),
    }
}

/// The attributes of something, as JSON gives them.
#[derive(Serialize, Debug)]
pub(crate) struct Described {
    #[serde(flatten)]
    named: Named,
    file: u64,
    kind: &'static str,
    size: u64,
    replication: u8,
    mode: String,
    uid: u32,
    gid: u32,
    links: u32,
    mtime_ns: u64,
    ctime_ns: u64,
    crtime_ns: u64,
}

impl Described {
    pub(crate) fn new(path: &[u8], attrs: &Attrs) -> Self {
        Self {
            named: Named::new(path),
            file: attrs.file.0,
            kind: kind(attrs.kind),
            size: attrs.size,
            replication: attrs.replication,
            mode: format!("{:04o}", attrs.mode),
            uid: attrs.uid,
            gid: attrs.gid,
            links: attrs.links,
            mtime_ns: attrs.mtime.0,
            ctime_ns: attrs.ctime.0,
            crtime_ns: attrs.crtime.0,
        }
    }
}

/// `file` or `directory`.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_text_is_given_in_base64() {
        let json = serde_json::to_string(&Named::new(b"/a/\xff")).unwrap();
        assert_eq!(json, r#"{"path_b64":"L2Ev/w==","name_b64":"/w=="}"#);
        assert_eq!(
            serde_json::to_string(&Named::new(b"/a/b")).unwrap(),
            r#"{"path":"/a/b","name":"b"}"#
        );
    }
}
