//! The project's source as text, for tests that hold rules over it: files, code without comments and
//! literals, the paths that code names.
//!
//! A lexer of what these rules need, not a parser of Rust: macros are read as the text they are.
use std::path::{Path, PathBuf};

/// The top of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate stands in the workspace")
        .to_owned()
}

/// A source file.
pub(crate) struct Source {
    /// From the top of the workspace, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// With comments and the insides of literals taken out; lines stay lines.
    pub(crate) code: String,
}

impl Source {
    fn read(path: String) -> Self {
        let text =
            std::fs::read_to_string(root().join(&path)).expect("a source file is readable UTF-8");
        let code = code(&text);
        Self { path, text, code }
    }

    /// Every path the code names, in `use` and elsewhere, as segments: `use a::{b, c::d}` names `a::b` and `a::c::d`.
    pub(crate) fn paths(&self) -> Vec<Vec<String>> {
        let tokens = tokens(&self.code);
        let mut found = vec![];
        let mut at = 0;
        while at < tokens.len() {
            if is_word(&tokens[at]) || tokens[at] == "::" {
                at = path_tree(&tokens, at, &[], &mut found);
            } else {
                at += 1;
            }
        }
        found
    }

    /// Whether the code has this word, whole.
    pub(crate) fn has_word(&self, word: &str) -> bool {
        tokens(&self.code).iter().any(|token| token == word)
    }

    /// Whether the code has these tokens in a row.
    pub(crate) fn has_tokens(&self, wanted: &[&str]) -> bool {
        tokens(&self.code)
            .windows(wanted.len())
            .any(|window| window == wanted)
    }
}

/// All `.rs` files below these directories of the workspace, by path. A directory that is missing has none.
pub(crate) fn sources(dirs: &[&str]) -> Vec<Source> {
    let mut paths = vec![];
    for dir in dirs {
        walk(&root().join(dir), &mut paths);
    }
    let mut paths: Vec<String> = paths.iter().map(|path| relative(path)).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().map(Source::read).collect()
}

fn relative(path: &Path) -> String {
    let inside = path.strip_prefix(root()).expect("below the workspace");
    inside.to_str().expect("source paths are UTF-8").to_owned()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry
            .expect("a directory of the project is readable")
            .path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            // Build output is no source, wherever it was told to go.
            if name != "target" && !name.starts_with('.') {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::`, and every other character by itself.
pub(crate) fn tokens(code: &str) -> Vec<String> {
    let chars: Vec<char> = code.chars().collect();
    let mut out = vec![];
    let mut at = 0;
    while at < chars.len() {
        let from = at;
        if chars[at].is_whitespace() {
            at += 1;
            continue;
        }
        if chars[at].is_alphanumeric() || chars[at] == '_' {
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
        } else if chars[at..].starts_with(&[':', ':']) {
            at += 2;
        } else {
            at += 1;
        }
        out.push(chars[from..at].iter().collect());
    }
    out
}

/// Reads one path, or tree of paths, from `at`; gives the position after it.
fn path_tree(
    tokens: &[String],
    mut at: usize,
    before: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("::") => at += 1,
            Some("{") if tokens[at.saturating_sub(1)] == "::" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let next = path_tree(tokens, at, &path, found);
                    at = next.max(at + 1);
                }
                return at + 1;
            }
            Some("*") if tokens[at.saturating_sub(1)] == "::" => {
                path.push("*".to_owned());
                at += 1;
                break;
            }
            Some(word) if is_word(word) => {
                path.push(word.to_owned());
                at += 1;
                if tokens.get(at).is_none_or(|token| token != "::") {
                    break;
                }
            }
            _ => break,
        }
    }
    if path.len() > before.len() && path.len() > 1 {
        found.push(path);
    }
    at
}

/// The text with comments and the insides of string and character literals blanked; lines stay lines.
fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let blank = |out: &mut String, chars: &[char]| out.extend(chars.iter().filter(|c| **c == '\n'));
    while at < chars.len() {
        let rest = &chars[at..];
        let word_before = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        if rest.starts_with(&['/', '/']) {
            at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
        } else if rest.starts_with(&['/', '*']) {
            let len = block_comment(rest);
            blank(&mut out, &rest[..len]);
            at += len;
        } else if let Some(len) = raw_string(rest).filter(|_| !word_before) {
            out.push_str("\"\"");
            blank(&mut out, &rest[..len]);
            at += len;
        } else if rest[0] == '"' {
            let len = quoted(rest);
            out.push_str("\"\"");
            blank(&mut out, &rest[..len]);
            at += len;
        } else if rest[0] == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')) {
            // A character; a lone quote is a lifetime.
            let len = if rest[1] == '\\' {
                3 + rest[3..]
                    .iter()
                    .position(|c| *c == '\'')
                    .map_or(0, |n| n + 1)
            } else {
                3
            };
            out.push_str("''");
            at += len;
        } else {
            out.push(rest[0]);
            at += 1;
        }
    }
    out
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(&['/', '*']) {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(&['*', '/']) {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of the raw string literal that `rest` begins with.
fn raw_string(rest: &[char]) -> Option<usize> {
    let from = rest
        .iter()
        .position(|c| *c == 'r')
        .filter(|at| *at == 0 || (*at == 1 && rest[0] == 'b'))?;
    let hashes = rest[from + 1..].iter().take_while(|c| **c == '#').count();
    let open = from + 1 + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let mut close = vec!['"'];
    close.resize(1 + hashes, '#');
    let inside = &rest[open + 1..];
    let len = (0..inside.len()).find(|at| inside[*at..].starts_with(&close))?;
    Some(open + 1 + len + close.len())
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}
