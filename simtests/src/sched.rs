//! A schedule as a file: text that a person can read, cut by hand, and run again.
//!
//! `sim shrink` writes one, `sim run` and `sim draw` take one. What is in it is all there is to the run, but for the
//! code it runs: it holds no seed of a scenario that may be drawn otherwise tomorrow.
use crate::oracle::Violation;
use crate::outcome::Outcome;
use crate::run::{Run, Simulator, Watching};
use crate::schedule::Schedule;
use kfs_core::planted::Bug;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// What a file says first that it is.
const FORMAT: &str = "kfs-sched";
/// The version of the format, of which this build reads no other.
const VERSION: u32 = 1;

/// See the module.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Sched {
    format: String,
    version: u32,
    /// What it was made from, for people.
    pub title: String,
    /// `bare` or `world`.
    simulator: String,
    /// The mistake that is planted, if it was found with one.
    planted: Option<String>,
    /// What it breaks, as it was when the file was written.
    pub breaks: Option<Broke>,
    /// The run.
    pub schedule: Schedule,
}

/// What a run broke.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Broke {
    /// Who saw it.
    pub oracle: String,
    /// Which promise.
    pub promise: String,
    /// What was expected and what was found.
    pub what: String,
}

impl From<&Violation> for Broke {
    fn from(violation: &Violation) -> Self {
        Self {
            oracle: violation.oracle.into(),
            promise: violation.promise.into(),
            what: violation.what.clone(),
        }
    }
}

/// The head of a file, whatever its version.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

impl Sched {
    /// Of this run, which broke this.
    #[must_use]
    pub fn new(
        title: String,
        simulator: Simulator,
        bug: Option<Bug>,
        schedule: Schedule,
        violation: Option<&Violation>,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            title,
            simulator: simulator.name().into(),
            planted: bug.map(|bug| bug.name().into()),
            breaks: violation.map(Broke::from),
            schedule,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// In one line: what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let named = |what: String| format!("{}: {what}", path.display());
        let text = std::fs::read_to_string(path).map_err(|why| named(why.to_string()))?;
        Self::parse(&text).map_err(named)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let head: Head = serde_json::from_str(text)
            .map_err(|why| format!("not a whole {FORMAT} file: {why}"))?;
        if head.format != FORMAT {
            return Err(format!(
                "a file of the format '{}', not {FORMAT}",
                head.format
            ));
        }
        if head.version != VERSION {
            let found = head.version;
            return Err(format!(
                "{FORMAT} version {found}; this build reads version {VERSION}"
            ));
        }
        let sched: Self = serde_json::from_str(text).map_err(|why| why.to_string())?;
        sched.simulator()?;
        sched.bug()?;
        sched.schedule.check()?;
        Ok(sched)
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a schedule is plain data");
        text.push('\n');
        text
    }

    /// In which simulator it runs.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn simulator(&self) -> Result<Simulator, String> {
        Simulator::ALL
            .into_iter()
            .find(|known| known.name() == self.simulator)
            .ok_or_else(|| format!("no simulator '{}'", self.simulator))
    }

    /// The mistake that is planted.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn bug(&self) -> Result<Option<Bug>, String> {
        let Some(name) = &self.planted else {
            return Ok(None);
        };
        let known = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        known.map_or_else(
            || Err(format!("no planted mistake '{name}'")),
            |bug| Ok(Some(bug)),
        )
    }

    /// The run, with its mistake planted or on the product as it is.
    ///
    /// # Errors
    /// As [`Self::simulator`] and [`Self::bug`].
    pub fn run(&self, planting: Planting) -> Result<Run, String> {
        Ok(Run {
            simulator: self.simulator()?,
            schedule: Arc::new(self.schedule.clone()),
            bug: match planting {
                Planting::AsFound => self.bug()?,
                Planting::Nothing => None,
            },
            trace: None,
            watching: Watching::Usual,
        })
    }

    /// A test to paste, beside the file of this name.
    #[must_use]
    pub fn test(&self, name: &str) -> String {
        let fn_name = name.replace(['-', ':'], "_");
        let (title, breaks) = (&self.title, self.breaks.as_ref());
        let broke = breaks.map_or_else(String::new, |broke| {
            format!("{} ({}): {}", broke.oracle, broke.promise, broke.what)
        });
        format!(
            "/// Shrunk from `{title}`.\n/// {broke}\n#[test]\nfn {fn_name}() {{\n    \
             simtests::sched::stays_quiet(include_str!(\"kept/{name}.sched\"));\n}}\n"
        )
    }
}

/// Whether the mistake that a file names is planted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planting {
    /// It is.
    AsFound,
    /// The product is run as it is.
    Nothing,
}

/// Runs a kept file on the product as it is: what a pasted test calls.
///
/// # Panics
/// If the file is not whole, or the run breaks a promise.
pub fn stays_quiet(text: &str) {
    let sched = Sched::parse(text).expect("a whole file");
    let run = sched.run(Planting::Nothing).expect("it was checked");
    let Outcome { violation, .. } = run.execute();
    assert!(violation.is_none(), "{}: {violation:?}", sched.title);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Kind;

    fn sched() -> Sched {
        let kind = Kind::named("bare:files").unwrap();
        let schedule = (kind.scenario.draw)(7);
        Sched::new(
            "bare:files --seed 7".into(),
            kind.simulator,
            None,
            schedule,
            None,
        )
    }

    #[test]
    fn a_schedule_survives_its_file() {
        let sched = sched();
        let again = Sched::parse(&sched.text()).unwrap();
        assert_eq!(again.schedule, sched.schedule);
        assert_eq!(again.text(), sched.text());
    }

    #[test]
    fn a_truncated_file_and_one_of_another_version_are_refused() {
        let text = sched().text();
        for cut in [0, 1, text.len() / 3, text.len() - 3] {
            let error = Sched::parse(&text[..cut]).unwrap_err();
            assert!(error.contains("not a whole"), "{cut}: {error}");
        }
        let other = text.replacen("\"version\": 1", "\"version\": 2", 1);
        assert!(Sched::parse(&other).unwrap_err().contains("version 2"));
        let other = text.replacen("kfs-sched", "kfs-trace", 1);
        assert!(Sched::parse(&other).unwrap_err().contains("kfs-trace"));
        let other = text.replacen("\"bare\"", "\"moon\"", 1);
        assert!(Sched::parse(&other).unwrap_err().contains("moon"));
    }

    #[test]
    fn a_schedule_that_names_what_is_not_there_is_refused() {
        let mut sched = sched();
        sched.schedule.servers = 1;
        assert!(Sched::parse(&sched.text()).is_err());
    }
}
