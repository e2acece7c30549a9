//! The TOML file of settings. A key that means nothing is an error, with the key that was probably meant.
use crate::error::{Code, StartError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// More than this many edits away, a key is no suggestion.
const SUGGEST_EDITS_MAX: usize = 3;

/// The settings of a file that were not taken yet.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// A scalar, as it would be written on a command line; `Err`: the type it has instead.
    text: Result<String, &'static str>,
    line: usize,
}

impl File {
    /// Reads the file at `path`, if there is one to read. `keys` are what it may hold; `others` are the
    /// other daemon's, named in the error only.
    pub(super) fn read(
        path: Option<&Path>,
        keys: &[&[&str]],
        others: &[&str],
    ) -> Result<Self, StartError> {
        let Some(path) = path else {
            return Ok(Self {
                path: PathBuf::new(),
                entries: BTreeMap::new(),
            });
        };
        let text = std::fs::read_to_string(path).map_err(|err| {
            StartError::new(
                Code::BadConfig,
                format!(
                    "cannot read the configuration file {}: {err}",
                    path.display()
                ),
            )
            .help("check the path given with --config or KFS_CONFIG")
        })?;
        let table = DeTable::parse(&text).map_err(|err| {
            let line = err.span().map_or(1, |span| line_at(&text, span.start));
            StartError::new(
                Code::BadConfig,
                format!("{}:{line}: {}", path.display(), err.message()),
            )
            .help("a setting is written key = \"value\"")
        })?;
        let keys: Vec<&str> = keys.concat();
        let mut entries = BTreeMap::new();
        for (key, value) in table.into_inner() {
            let line = line_at(&text, key.span().start);
            let key = key.into_inner();
            if !keys.contains(&key.as_ref()) {
                let what = format!("{}:{line}: unknown key '{key}'", path.display());
                return Err(
                    StartError::new(Code::BadConfig, what).help(advice(&key, &keys, others))
                );
            }
            let text = scalar(value.get_ref());
            entries.insert(key.into_owned(), Entry { text, line });
        }
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }

    /// `given` if it is there, else what the file says under `key`.
    pub(super) fn or<T>(
        &mut self,
        key: &str,
        given: Option<T>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, StartError> {
        match given {
            Some(given) => {
                self.forget(key);
                Ok(Some(given))
            }
            None => self.take(key, parse),
        }
    }

    /// What the file says under `key`.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, StartError> {
        let Some(Entry { text, line }) = self.entries.remove(key) else {
            return Ok(None);
        };
        let parsed = match text {
            Ok(text) => parse(&text),
            Err(kind) => Err(format!(
                "it is {kind}, and must be a string, an integer or a boolean"
            )),
        };
        parsed.map(Some).map_err(|why| {
            StartError::new(
                Code::BadConfig,
                format!(
                    "{}:{line}: wrong value of '{key}': {why}",
                    self.path.display()
                ),
            )
        })
    }

    /// The file and the line in which `key` stands, if it was not taken yet.
    pub(super) fn place(&self, key: &str) -> Option<(&Path, usize)> {
        let entry = self.entries.get(key)?;
        Some((&self.path, entry.line))
    }

    /// Leaves out what the file says under `key`: something stronger was given.
    pub(super) fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

fn scalar(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Ok(yes.to_string()),
        DeValue::Integer(_) => Err("an integer that is not decimal"),
        DeValue::Float(_) => Err("a float"),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Array(_) => Err("an array"),
        DeValue::Table(_) => Err("a table"),
    }
}

fn advice(key: &str, keys: &[&str], others: &[&str]) -> String {
    if others.contains(&key) {
        return format!("'{key}' is a setting of the other daemon: give each its own file");
    }
    let plain = key.to_lowercase().replace('_', "-");
    let nearest = keys
        .iter()
        .map(|known| (edits(&plain, known), *known))
        .min();
    match nearest {
        Some((distance, known)) if distance <= SUGGEST_EDITS_MAX.min(known.len() / 2) => {
            format!("did you mean '{known}'?")
        }
        _ => format!("the keys are {}", keys.join(", ")),
    }
}

/// Insertions, deletions and replacements that make `to` of `from` (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_single_edits() {
        for (from, to, count) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("listen", "listen", 0),
            ("lsiten", "listen", 2),
        ] {
            assert_eq!(edits(from, to), count, "{from} {to}");
            assert_eq!(edits(to, from), count, "{to} {from}");
        }
    }

    #[test]
    fn advice_is_the_nearest_key_or_all_of_them() {
        let keys = ["listen", "http", "min-replicas"];
        assert_eq!(advice("Listen", &keys, &[]), "did you mean 'listen'?");
        assert_eq!(
            advice("min_replicas", &keys, &[]),
            "did you mean 'min-replicas'?"
        );
        assert_eq!(advice("htpp", &keys, &[]), "did you mean 'http'?");
        assert!(advice("zzzzzzzz", &keys, &[]).contains("listen, http, min-replicas"));
    }
}
