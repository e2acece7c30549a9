//! The settings in force, each with where it comes from: what `kfs config show` prints.
//!
//! A daemon's own flags are read here, and its own resolution made: nothing about a setting is known twice.
use super::file::File;
use super::value::{bytes, duration};
use super::{
    CHUNK_KEYS, COMMON_KEYS, ChunkConfig, ChunkFlags, Logging, META_KEYS, MetaConfig, MetaFlags,
};
use crate::error::{Code, StartError};
use crate::telemetry;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// As in the file, and behind `--`.
    pub key: &'static str,
    /// As it would be typed; `None`: there is none.
    pub value: Option<String>,
    /// Who said so.
    pub origin: Origin,
}

/// Where a setting comes from: the strongest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The command line.
    Flag,
    /// This variable.
    Environment(String),
    /// This line of the configuration file.
    File(PathBuf, usize),
    /// Nobody said anything.
    Default,
    /// It has to be given, and is not.
    Missing,
}

/// A flag that is no setting of the file.
const CONFIG: &str = "config";
/// Stands for a data directory while none is given: everything else can be told without it.
const NO_DATA: &str = ".";

/// The settings of a meta server that is started with these flags, in this environment.
///
/// # Errors
/// As the server's own start would refuse them.
pub fn of_meta(flags: Vec<OsString>) -> Result<Vec<Setting>, StartError> {
    let keys = [&COMMON_KEYS[..], &META_KEYS];
    shown::<MetaFlags>(flags, &keys, &CHUNK_KEYS, |flags| {
        let (config, logging) = flags.resolve()?;
        Ok([meta_values(&config), logging_values(&logging)].concat())
    })
}

/// The settings of a chunkserver that is started with these flags, in this environment.
///
/// # Errors
/// As the server's own start would refuse them.
pub fn of_chunk(flags: Vec<OsString>) -> Result<Vec<Setting>, StartError> {
    let keys = [&COMMON_KEYS[..], &CHUNK_KEYS];
    shown::<ChunkFlags>(flags, &keys, &META_KEYS, |flags| {
        let (config, logging) = flags.resolve()?;
        Ok([chunk_values(&config), logging_values(&logging)].concat())
    })
}

type Values = Vec<(&'static str, Option<String>)>;

fn shown<F: CommandFactory + FromArgMatches>(
    mut flags: Vec<OsString>,
    keys: &[&[&str]],
    others: &[&str],
    resolve: impl FnOnce(F) -> Result<Values, StartError>,
) -> Result<Vec<Setting>, StartError> {
    let parse = |flags: &[OsString]| {
        let command = F::command().no_binary_name(true).disable_help_flag(true);
        command
            .try_get_matches_from(flags)
            .map_err(|error| refused(&error))
    };
    let given = parse(&flags)?;
    let config = given.get_one::<PathBuf>(CONFIG).cloned();
    let file = File::read(config.as_deref(), keys, others)?;
    let is_missing = |key| key == "data" && origin(&given, key, &file).is_none();
    if is_missing("data") {
        flags.extend(["--data".into(), NO_DATA.into()]);
    }
    let flags = F::from_arg_matches(&parse(&flags)?).map_err(|error| refused(&error))?;
    let config = (CONFIG, config.map(|path| path.display().to_string()));
    let values = std::iter::once(config).chain(resolve(flags)?);
    let settings = values.map(|(key, value)| {
        if is_missing(key) {
            return Setting {
                key,
                value: None,
                origin: Origin::Missing,
            };
        }
        Setting {
            key,
            value,
            origin: origin(&given, key, &file).unwrap_or(Origin::Default),
        }
    });
    Ok(settings.collect())
}

/// `None`: nobody has said it.
fn origin(given: &ArgMatches, key: &str, file: &File) -> Option<Origin> {
    let id = key.replace('-', "_");
    match given.value_source(&id) {
        Some(ValueSource::CommandLine) => return Some(Origin::Flag),
        Some(ValueSource::EnvVariable) => {
            let variable = format!("KFS_{}", id.to_uppercase());
            return Some(Origin::Environment(variable));
        }
        _ => {}
    }
    if key == "log" && super::rust_log().is_some() {
        return Some(Origin::Environment("RUST_LOG".to_owned()));
    }
    let (path, line) = file.place(key)?;
    Some(Origin::File(path.to_owned(), line))
}

fn refused(error: &clap::Error) -> StartError {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    StartError::new(Code::BadConfig, line)
}

fn meta_values(config: &MetaConfig) -> Values {
    let MetaConfig {
        data,
        listen,
        http,
        replication,
        min_replicas,
        timing,
        cluster,
        checkpoint_every,
        re_replicate_after,
        copy_rate,
        log_mirror,
        record,
        limits: _,
    } = config;
    vec![
        ("data", Some(path(data))),
        ("listen", Some(listen.to_string())),
        ("http", http.as_ref().map(SocketAddr::to_string)),
        ("replication", Some(replication.to_string())),
        ("min-replicas", Some(min_replicas.to_string())),
        ("serve-lease", Some(duration(timing.serve_lease))),
        ("heartbeat", Some(duration(timing.heartbeat))),
        ("trash-grace", Some(duration(timing.trash_grace))),
        (
            "checkpoint-every",
            Some(duration(checkpoint_every.unwrap_or(Duration::ZERO))),
        ),
        ("re-replicate-after", Some(duration(*re_replicate_after))),
        ("copy-rate", Some(bytes(*copy_rate))),
        ("log-mirror", log_mirror.as_deref().map(path)),
        ("cluster-id", cluster.map(|cluster| cluster.to_string())),
        ("record", record.as_deref().map(path)),
    ]
}

fn chunk_values(config: &ChunkConfig) -> Values {
    let ChunkConfig {
        data,
        meta,
        listen,
        http,
        rack,
        scrub_rate,
        record,
        limits: _,
    } = config;
    vec![
        ("data", Some(path(data))),
        ("meta", Some(meta.to_string())),
        ("listen", Some(listen.to_string())),
        ("http", http.as_ref().map(SocketAddr::to_string)),
        ("rack", Some(rack.clone()).filter(|rack| !rack.is_empty())),
        ("scrub-rate", Some(bytes(*scrub_rate))),
        ("record", record.as_deref().map(path)),
    ]
}

fn logging_values(logging: &Logging) -> Values {
    let Logging { filter, format } = logging;
    let is_json = *format == telemetry::Format::Json;
    vec![
        ("log", Some(filter.clone())),
        ("log-json", Some(is_json.to_string())),
    ]
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::Write as _;

    fn setting<'a>(settings: &'a [Setting], key: &str) -> (Option<&'a str>, &'a Origin) {
        let found = settings.iter().find(|setting| setting.key == key).unwrap();
        (found.value.as_deref(), &found.origin)
    }

    #[test]
    fn every_key_is_shown_once_and_what_is_not_given_is_said_to_be_missing() {
        for (settings, keys) in [
            (of_meta(vec![]), [&COMMON_KEYS[..], &META_KEYS].concat()),
            (of_chunk(vec![]), [&COMMON_KEYS[..], &CHUNK_KEYS].concat()),
        ] {
            let settings = settings.unwrap();
            let shown: BTreeSet<_> = settings.iter().map(|setting| setting.key).collect();
            assert_eq!(shown.len(), settings.len());
            let keys: BTreeSet<_> = keys.into_iter().chain([CONFIG]).collect();
            assert_eq!(shown, keys);
            assert_eq!(setting(&settings, "data"), (None, &Origin::Missing));
            assert_eq!(setting(&settings, "record"), (None, &Origin::Default));
        }
    }

    #[test]
    fn a_value_names_who_has_won_and_the_line_it_stands_in() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"# ours\ndata = '/from/file'\nreplication = 2\ncopy-rate = '3M'\n")
            .unwrap();
        let path = file.path().to_owned();
        let flags = ["--config", path.to_str().unwrap(), "--replication", "5"];
        let settings = of_meta(flags.map(OsString::from).to_vec()).unwrap();
        let in_file = |line| Origin::File(path.clone(), line);
        assert_eq!(
            setting(&settings, "data"),
            (Some("/from/file"), &in_file(2))
        );
        assert_eq!(setting(&settings, "copy-rate"), (Some("3MiB"), &in_file(4)));
        assert_eq!(
            setting(&settings, "replication"),
            (Some("5"), &Origin::Flag)
        );
        assert_eq!(
            setting(&settings, "heartbeat"),
            (Some("1s"), &Origin::Default)
        );
        assert_eq!(setting(&settings, CONFIG).1, &Origin::Flag);
    }

    #[test]
    fn what_a_server_would_refuse_is_refused_here() {
        let refused = |flags: &[&str]| {
            let flags = flags.iter().map(OsString::from).collect();
            of_meta(flags).unwrap_err().to_string()
        };
        assert!(refused(&["--heartbeat", "9s"]).contains("serve-lease"));
        assert!(refused(&["--rack", "r"]).contains("--rack"));
        assert!(refused(&["--config", "/no/such/file"]).contains("/no/such/file"));
    }
}
