//! Settings of the daemons: flag, then `KFS_…` in the environment, then the TOML file, then the default.
//!
//! [`MetaConfig`] and [`ChunkConfig`] are what a server is started with; [`MetaFlags`] and [`ChunkFlags`]
//! are what a person types. A setting has one name in all places: `--serve-lease`, `KFS_SERVE_LEASE`,
//! `serve-lease = "5s"`.
mod file;
pub mod shown;
mod value;

use crate::error::{Code, StartError};
use crate::telemetry;
use clap::Parser;
use clap::builder::BoolishValueParser;
use file::File;
use kfs_core::ids::ClusterId;
use kfs_core::limits::{Limits, Timing};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
pub use value::{HostPort, parse_duration};

const META_PORT: u16 = 20_000;
const META_HTTP_PORT: u16 = 20_080;
const CHUNK_PORT: u16 = 22_000;
const CHUNK_HTTP_PORT: u16 = 22_080;
const REPLICATION: u8 = 3;
const MIN_REPLICAS: u8 = 2;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(3_600);
const RE_REPLICATE_AFTER: Duration = Duration::from_secs(60);
const COPY_RATE: u64 = 512 << 20;
const SCRUB_RATE: u64 = 8 << 20;

/// What a meta server is started with.
#[derive(Clone, Debug)]
pub struct MetaConfig {
    /// Its data directory; made and formatted if it is missing or empty.
    pub data: PathBuf,
    /// Where chunkservers and clients reach it; port 0: any.
    pub listen: SocketAddr,
    /// Where its pages are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Replicas a file gets unless it says otherwise.
    pub replication: u8,
    /// Fewest live servers a new chunk is begun with.
    pub min_replicas: u8,
    /// The periods it tells everybody to keep.
    pub timing: Timing,
    /// The cluster the data directory must belong to.
    pub cluster: Option<ClusterId>,
    /// How often a checkpoint is made; `None`: never.
    pub checkpoint_every: Option<Duration>,
    /// A server that is silent may merely be restarting for so long, before its chunks are copied.
    pub re_replicate_after: Duration,
    /// Bytes a second that are copied in the whole cluster, at most.
    pub copy_rate: u64,
    /// The directory of the second copy of the log; `None`: there is none.
    pub log_mirror: Option<PathBuf>,
    /// A new file that everything it is told is recorded in; `None`: nothing is.
    pub record: Option<PathBuf>,
    /// Bounds of queues.
    pub limits: Limits,
}

impl MetaConfig {
    /// The defaults, on any free port of the loopback address: how an embedded server is started.
    #[must_use]
    pub fn embedded(data: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            data: data.into(),
            listen: any,
            http: Some(any),
            replication: REPLICATION,
            min_replicas: MIN_REPLICAS,
            timing: Timing::REAL,
            cluster: None,
            checkpoint_every: Some(CHECKPOINT_EVERY),
            re_replicate_after: RE_REPLICATE_AFTER,
            copy_rate: COPY_RATE,
            log_mirror: None,
            record: None,
            limits: Limits::REAL,
        }
    }
}

/// What a chunkserver is started with.
#[derive(Clone, Debug)]
pub struct ChunkConfig {
    /// Its data directory; made and formatted if it is missing or empty.
    pub data: PathBuf,
    /// Where the meta server listens.
    pub meta: SocketAddr,
    /// Where clients and other chunkservers reach it; port 0: any.
    pub listen: SocketAddr,
    /// Where its pages are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// The rack it is in; empty: none.
    pub rack: String,
    /// Bytes a second that it reads by itself, to find what has rotted; 0: it does not.
    pub scrub_rate: u64,
    /// A new file that everything it is told is recorded in; `None`: nothing is.
    pub record: Option<PathBuf>,
    /// Bounds of queues.
    pub limits: Limits,
}

impl ChunkConfig {
    /// The defaults, on any free port of the loopback address: how an embedded server is started.
    #[must_use]
    pub fn embedded(data: impl Into<PathBuf>, meta: SocketAddr) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            data: data.into(),
            meta,
            listen: any,
            http: Some(any),
            rack: String::new(),
            scrub_rate: SCRUB_RATE,
            record: None,
            limits: Limits::REAL,
        }
    }
}

/// How a daemon logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Logging {
    /// What passes.
    pub filter: String,
    /// How lines look.
    pub format: telemetry::Format,
}

const AFTER_HELP: &str = "\
Every setting may also stand in the environment (KFS_LISTEN for --listen) or in the file given with --config \
(listen = \"127.0.0.1:0\"); a flag wins over the environment, the environment over the file. Durations are \
written 500ms, 60s, 5m, 1h.

Once it serves, one line is printed on stdout: ready listen=ADDR:PORT http=ADDR:PORT
Exit codes: 0 stopped cleanly, 1 failed, 2 bad usage, 5 not reachable, 6 corrupt data, 7 refused.";

/// The KFS meta server: the namespace, its log, and where every chunk is.
#[derive(Parser, Debug)]
#[command(name = "kfs-metaserver", version, after_help = AFTER_HELP)]
pub struct MetaFlags {
    /// Data directory, made and formatted if missing or empty
    #[arg(long, value_name = "DIR", env = "KFS_DATA")]
    data: Option<PathBuf>,
    /// Where chunkservers and clients connect [default: 127.0.0.1:20000]
    #[arg(long, value_name = "HOST:PORT", env = "KFS_LISTEN")]
    listen: Option<HostPort>,
    /// Where status pages and metrics are served [default: 127.0.0.1:20080]
    #[arg(long, value_name = "HOST:PORT", env = "KFS_HTTP")]
    http: Option<HostPort>,
    /// Replicas of a file, unless it asks for another number [default: 3]
    #[arg(long, value_name = "N", env = "KFS_REPLICATION", value_parser = value::parse_replicas)]
    replication: Option<u8>,
    /// Fewest live chunkservers that a new chunk is begun with [default: 2, or the replication if that is 1]
    #[arg(long, value_name = "N", env = "KFS_MIN_REPLICAS", value_parser = value::parse_replicas)]
    min_replicas: Option<u8>,
    /// A chunkserver that was not heard for this long is cut off [default: 5s]
    #[arg(long, value_name = "DURATION", env = "KFS_SERVE_LEASE", value_parser = parse_duration)]
    serve_lease: Option<Duration>,
    /// Chunkservers say this often that they are alive [default: 1s]
    #[arg(long, value_name = "DURATION", env = "KFS_HEARTBEAT", value_parser = parse_duration)]
    heartbeat: Option<Duration>,
    /// Chunks of removed files stay in trash/ for this long [default: 1h]
    #[arg(long, value_name = "DURATION", env = "KFS_TRASH_GRACE", value_parser = parse_duration)]
    trash_grace: Option<Duration>,
    /// A checkpoint of the namespace is made this often; 0s: never by itself [default: 1h]
    #[arg(long, value_name = "DURATION", env = "KFS_CHECKPOINT_EVERY", value_parser = parse_duration)]
    checkpoint_every: Option<Duration>,
    /// What a silent chunkserver had is copied to others after this long; of chunks with one copy left, after a tenth [default: 60s]
    #[arg(long, value_name = "DURATION", env = "KFS_RE_REPLICATE_AFTER", value_parser = parse_duration)]
    re_replicate_after: Option<Duration>,
    /// No more bytes a second are copied to replace lost replicas, in the whole cluster [default: 512MiB]
    #[arg(long, value_name = "BYTES", env = "KFS_COPY_RATE", value_parser = value::parse_size)]
    copy_rate: Option<u64>,
    /// A second copy of the log is kept in this directory, on another disk: an ack waits for both [default: none]
    #[arg(long, value_name = "DIR", env = "KFS_LOG_MIRROR")]
    log_mirror: Option<PathBuf>,
    /// The cluster that the data directory must belong to: an empty one is then refused, not formatted
    #[arg(long, value_name = "ID", env = "KFS_CLUSTER_ID")]
    cluster_id: Option<ClusterId>,
    #[command(flatten)]
    common: CommonFlags,
}

/// The KFS chunkserver: stores chunks as files and serves them.
#[derive(Parser, Debug)]
#[command(name = "kfs-chunkserver", version, after_help = AFTER_HELP)]
pub struct ChunkFlags {
    /// Data directory, made and formatted if missing or empty
    #[arg(long, value_name = "DIR", env = "KFS_DATA")]
    data: Option<PathBuf>,
    /// Where the meta server listens [default: 127.0.0.1:20000]
    #[arg(long, value_name = "HOST:PORT", env = "KFS_META")]
    meta: Option<HostPort>,
    /// Where clients and other chunkservers connect [default: 127.0.0.1:22000]
    #[arg(long, value_name = "HOST:PORT", env = "KFS_LISTEN")]
    listen: Option<HostPort>,
    /// Where status pages and metrics are served [default: 127.0.0.1:22080]
    #[arg(long, value_name = "HOST:PORT", env = "KFS_HTTP")]
    http: Option<HostPort>,
    /// The rack this server stands in: replicas are spread over racks [default: none]
    #[arg(long, value_name = "NAME", env = "KFS_RACK", value_parser = value::parse_rack)]
    rack: Option<String>,
    /// So many bytes a second are read when nobody asks for them, to find what has rotted; 0: none [default: 8MiB]
    #[arg(long, value_name = "BYTES", env = "KFS_SCRUB_RATE", value_parser = value::parse_size_or_zero)]
    scrub_rate: Option<u64>,
    #[command(flatten)]
    common: CommonFlags,
}

#[derive(clap::Args, Debug)]
struct CommonFlags {
    /// TOML file with settings
    #[arg(long, value_name = "FILE", env = "KFS_CONFIG")]
    config: Option<PathBuf>,
    /// Records everything that the server is told, file data too, in a new file, for 'sim replay' [default: off]
    #[arg(long, value_name = "FILE", env = "KFS_RECORD")]
    record: Option<PathBuf>,
    /// What is logged to stderr: a level, or pairs such as kfs_core::meta=debug [default: RUST_LOG, or info]
    #[arg(long, value_name = "FILTER", env = "KFS_LOG")]
    log: Option<String>,
    /// Logs as JSON lines, or with 'false' as text [default: false]
    #[arg(long, value_name = "BOOL", env = "KFS_LOG_JSON", value_parser = BoolishValueParser::new(), num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    log_json: Option<bool>,
}

/// Makes the next checkpoint of a meta server's namespace from its closed log segments, beside the server or without it.
#[derive(Parser, Debug)]
#[command(
    name = "kfs-logcompactor",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 bad usage, 6 corrupt data, 7 refused."
)]
pub struct CompactorFlags {
    /// Data directory of the meta server
    #[arg(long, value_name = "DIR", env = "KFS_DATA")]
    pub data: PathBuf,
    /// Where the meta server keeps the mirror of its log: old segments go there as well
    #[arg(long, value_name = "DIR", env = "KFS_LOG_MIRROR")]
    pub log_mirror: Option<PathBuf>,
    /// Only read what there is, and say up to which record it is whole
    #[arg(long)]
    pub verify: bool,
    /// What is logged to stderr
    #[arg(long, value_name = "FILTER", env = "KFS_LOG", default_value = "warn")]
    pub log: String,
}

impl CommonFlags {
    fn logging(self, file: &mut File) -> Result<Logging, StartError> {
        let filter = match (self.log, rust_log()) {
            (Some(filter), _) | (None, Some(filter)) => {
                file.forget("log");
                filter
            }
            (None, None) => {
                let filter = file.take("log", |text| Ok(text.to_owned()))?;
                filter.unwrap_or_else(|| telemetry::DEFAULT_FILTER.to_owned())
            }
        };
        let json = file.or("log-json", self.log_json, |text| {
            text.parse().map_err(|_| "not true or false".to_owned())
        })?;
        let json = json.unwrap_or(false);
        Ok(Logging {
            filter,
            format: if json {
                telemetry::Format::Json
            } else {
                telemetry::Format::Text
            },
        })
    }
}

const COMMON_KEYS: [&str; 5] = ["data", "http", "listen", "log", "record"];
const META_KEYS: [&str; 11] = [
    "checkpoint-every",
    "re-replicate-after",
    "copy-rate",
    "cluster-id",
    "heartbeat",
    "log-json",
    "log-mirror",
    "min-replicas",
    "replication",
    "serve-lease",
    "trash-grace",
];
const CHUNK_KEYS: [&str; 4] = ["log-json", "meta", "rack", "scrub-rate"];

impl MetaFlags {
    /// The settings in force: flags and environment, then the file, then defaults.
    ///
    /// # Errors
    /// If the file cannot be used, a value makes no sense, or a host is unknown.
    pub fn resolve(self) -> Result<(MetaConfig, Logging), StartError> {
        let mut file = File::read(
            self.common.config.as_deref(),
            &[&COMMON_KEYS, &META_KEYS],
            &CHUNK_KEYS,
        )?;
        let data = data(file.or("data", self.data, |text| Ok(PathBuf::from(text)))?)?;
        let listen = file.or("listen", self.listen, str::parse)?;
        let http = file.or("http", self.http, str::parse)?;
        let replication = file.or("replication", self.replication, value::parse_replicas)?;
        let replication = replication.unwrap_or(REPLICATION);
        let min_replicas = file.or("min-replicas", self.min_replicas, value::parse_replicas)?;
        let min_replicas = min_replicas.unwrap_or_else(|| MIN_REPLICAS.min(replication));
        let serve_lease = file.or("serve-lease", self.serve_lease, parse_duration)?;
        let heartbeat = file.or("heartbeat", self.heartbeat, parse_duration)?;
        let trash_grace = file.or("trash-grace", self.trash_grace, parse_duration)?;
        let timing = Timing {
            heartbeat: heartbeat.unwrap_or(Timing::REAL.heartbeat),
            serve_lease: serve_lease.unwrap_or(Timing::REAL.serve_lease),
            trash_grace: trash_grace.unwrap_or(Timing::REAL.trash_grace),
            ..Timing::REAL
        };
        let checkpoint_every =
            file.or("checkpoint-every", self.checkpoint_every, parse_duration)?;
        let checkpoint_every = checkpoint_every.unwrap_or(CHECKPOINT_EVERY);
        let re_replicate_after = file.or(
            "re-replicate-after",
            self.re_replicate_after,
            parse_duration,
        )?;
        let copy_rate = file.or("copy-rate", self.copy_rate, value::parse_size)?;
        let cluster = file.or("cluster-id", self.cluster_id, str::parse)?;
        let log_mirror = file.or("log-mirror", self.log_mirror, path)?;
        let record = file.or("record", self.common.record.clone(), path)?;
        let logging = self.common.logging(&mut file)?;
        if min_replicas > replication {
            return Err(bad(format!(
                "min-replicas is {min_replicas} and replication {replication}: no file could be written"
            ))
            .help("give --min-replicas a number that is at most --replication"));
        }
        if timing.heartbeat.is_zero() || timing.serve_lease < timing.heartbeat * 2 {
            return Err(bad(format!(
                "heartbeat is {:?} and serve-lease {:?}: one lost heartbeat would cut a server off",
                timing.heartbeat, timing.serve_lease
            ))
            .help("give --serve-lease at least twice the length of --heartbeat, which must not be zero"));
        }
        let config = MetaConfig {
            data,
            listen: address("listen", listen, META_PORT)?,
            http: Some(address("http", http, META_HTTP_PORT)?),
            replication,
            min_replicas,
            timing,
            cluster,
            checkpoint_every: (!checkpoint_every.is_zero()).then_some(checkpoint_every),
            re_replicate_after: re_replicate_after.unwrap_or(RE_REPLICATE_AFTER),
            copy_rate: copy_rate.unwrap_or(COPY_RATE),
            log_mirror,
            record,
            limits: Limits::REAL,
        };
        Ok((config, logging))
    }
}

impl ChunkFlags {
    /// The settings in force: flags and environment, then the file, then defaults.
    ///
    /// # Errors
    /// If the file cannot be used, a value makes no sense, or a host is unknown.
    pub fn resolve(self) -> Result<(ChunkConfig, Logging), StartError> {
        let mut file = File::read(
            self.common.config.as_deref(),
            &[&COMMON_KEYS, &CHUNK_KEYS],
            &META_KEYS,
        )?;
        let data = data(file.or("data", self.data, |text| Ok(PathBuf::from(text)))?)?;
        let meta = file.or("meta", self.meta, str::parse)?;
        let listen = file.or("listen", self.listen, str::parse)?;
        let http = file.or("http", self.http, str::parse)?;
        let rack = file.or("rack", self.rack, value::parse_rack)?;
        let scrub_rate = file.or("scrub-rate", self.scrub_rate, value::parse_size_or_zero)?;
        let record = file.or("record", self.common.record.clone(), path)?;
        let logging = self.common.logging(&mut file)?;
        let config = ChunkConfig {
            data,
            meta: address("meta", meta, META_PORT)?,
            listen: address("listen", listen, CHUNK_PORT)?,
            http: Some(address("http", http, CHUNK_HTTP_PORT)?),
            rack: rack.unwrap_or_default(),
            scrub_rate: scrub_rate.unwrap_or(SCRUB_RATE),
            record,
            limits: Limits::REAL,
        };
        if config.meta.port() == 0 {
            return Err(bad("--meta names port 0, where nothing can be reached")
                .help("give the port that the meta server printed in its 'ready' line"));
        }
        Ok((config, logging))
    }
}

/// What the environment says that everybody logs, if it does.
fn rust_log() -> Option<String> {
    let filter = std::env::var("RUST_LOG").ok();
    filter.filter(|filter| !filter.is_empty())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn data(given: Option<PathBuf>) -> Result<PathBuf, StartError> {
    given
        .filter(|dir| !dir.as_os_str().is_empty())
        .ok_or_else(|| {
            bad("no data directory is given")
                .help("name one with --data DIR, KFS_DATA, or data = \"DIR\" in the file")
        })
}

fn address(
    flag: &str,
    given: Option<HostPort>,
    default_port: u16,
) -> Result<SocketAddr, StartError> {
    let Some(given) = given else {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, default_port)));
    };
    given.resolve().map_err(|err| {
        StartError::new(
            Code::UnknownHost,
            format!("'{given}' (--{flag}) has no address: {err}"),
        )
        .help("check the name, or give an IP address")
    })
}

fn bad(what: impl Into<String>) -> StartError {
    StartError::new(Code::BadConfig, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use std::collections::BTreeSet;
    use std::io::Write as _;

    fn meta(args: &[&str]) -> Result<(MetaConfig, Logging), StartError> {
        MetaFlags::try_parse_from([&["kfs-metaserver"], args].concat())
            .expect("flags that parse")
            .resolve()
    }
    fn toml(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn every_flag_has_a_key_and_every_key_a_flag() {
        let pairs = [
            (
                MetaFlags::command(),
                [&COMMON_KEYS[..], &META_KEYS].concat(),
            ),
            (
                ChunkFlags::command(),
                [&COMMON_KEYS[..], &CHUNK_KEYS].concat(),
            ),
        ];
        for (command, keys) in pairs {
            command.clone().debug_assert();
            let flags: BTreeSet<_> = command
                .get_arguments()
                .filter_map(|arg| arg.get_long())
                .collect();
            let keys: BTreeSet<_> = keys.into_iter().chain(["config"]).collect();
            assert_eq!(flags, keys);
            for arg in command.get_arguments() {
                let long = arg.get_long().expect("flags are long");
                let env = arg
                    .get_env()
                    .expect("every flag has a variable")
                    .to_str()
                    .unwrap();
                assert_eq!(
                    env,
                    format!("KFS_{}", long.to_uppercase().replace('-', "_"))
                );
            }
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file =
            toml("data = '/from/file'\nreplication = 2\nserve-lease = '9s'\nlog-json = true\n");
        let path = file.path().to_str().unwrap();
        let (config, logging) = meta(&["--config", path, "--replication", "5"]).unwrap();
        assert_eq!(config.data, PathBuf::from("/from/file"));
        assert_eq!((config.replication, config.min_replicas), (5, 2));
        assert_eq!(
            (config.timing.serve_lease, config.timing.heartbeat),
            (Duration::from_secs(9), Duration::from_secs(1))
        );
        assert_eq!(config.listen, "127.0.0.1:20000".parse().unwrap());
        assert_eq!(logging.format, telemetry::Format::Json);
    }

    #[test]
    fn what_a_chunkserver_reads_by_itself_has_a_default_a_unit_and_an_off() {
        let rate = |args: &[&str]| {
            let flags = ChunkFlags::try_parse_from([&["kfs-chunkserver"], args].concat());
            flags.map(|flags| flags.resolve().unwrap().0.scrub_rate)
        };
        assert_eq!(rate(&["--data", "/d"]).unwrap(), 8 << 20);
        for (said, bytes) in [("0", 0), ("0MiB", 0), ("64KiB", 65_536)] {
            assert_eq!(
                rate(&["--data", "/d", "--scrub-rate", said]).unwrap(),
                bytes
            );
            let file = toml(&format!("data = '/d'\nscrub-rate = '{said}'\n"));
            let path = file.path().to_str().unwrap();
            assert_eq!(rate(&["--config", path]).unwrap(), bytes);
        }
        assert!(rate(&["--data", "/d", "--scrub-rate", "slowly"]).is_err());
        let embedded = ChunkConfig::embedded("/d", SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        assert_eq!(embedded.scrub_rate, 8 << 20);
    }

    #[test]
    fn nothing_is_recorded_unless_a_file_is_named() {
        let record = |args: &[&str]| meta(args).unwrap().0.record;
        assert_eq!(record(&["--data", "/d"]), None);
        let file = toml("data = '/d'\nrecord = '/from/file'\n");
        let path = file.path().to_str().unwrap();
        assert_eq!(
            record(&["--config", path]),
            Some(PathBuf::from("/from/file"))
        );
        assert_eq!(
            record(&["--config", path, "--record", "r"]),
            Some(PathBuf::from("r"))
        );
        let args = ["kfs-chunkserver", "--config", path];
        let chunk = ChunkFlags::try_parse_from(args).unwrap().resolve();
        assert_eq!(chunk.unwrap().0.record, Some(PathBuf::from("/from/file")));
        let file = toml("data = '/d'\nrecord = ''\n");
        let empty = meta(&["--config", file.path().to_str().unwrap()]);
        assert!(empty.unwrap_err().what.contains(":2"), "it names the line");
    }

    #[test]
    fn the_log_has_no_mirror_unless_a_directory_is_named() {
        let mirror = |args: &[&str]| meta(args).unwrap().0.log_mirror;
        assert_eq!(mirror(&["--data", "/d"]), None);
        let file = toml("data = '/d'\nlog-mirror = '/from/file'\n");
        let path = file.path().to_str().unwrap();
        let from_file = mirror(&["--config", path]);
        assert_eq!(from_file, Some(PathBuf::from("/from/file")));
        let flag = mirror(&["--config", path, "--log-mirror", "/m"]);
        assert_eq!(flag, Some(PathBuf::from("/m")));
        let file = toml("data = '/d'\nlog-mirror = ''\n");
        let empty = meta(&["--config", file.path().to_str().unwrap()]);
        assert!(empty.unwrap_err().what.contains(":2"), "it names the line");
    }

    /// As a flag, and as `KFS_LOG_JSON=false`, which is read the same way.
    #[test]
    fn what_the_file_says_of_logs_can_be_taken_back() {
        let file = toml("data = '/d'\nlog-json = true\n");
        let path = file.path().to_str().unwrap();
        let format = |args: &[&str]| {
            meta(&[&["--config", path], args].concat())
                .unwrap()
                .1
                .format
        };
        assert_eq!(format(&[]), telemetry::Format::Json);
        assert_eq!(format(&["--log-json=false"]), telemetry::Format::Text);
        assert_eq!(format(&["--log-json"]), telemetry::Format::Json);
        let flag = meta(&["--data", "/d", "--log-json"]).unwrap().1.format;
        assert_eq!(flag, telemetry::Format::Json);
    }

    #[test]
    fn a_misspelt_key_is_an_error_that_names_the_likely_one_and_the_line() {
        let file = toml("data = '/d'\nreplicaton = 2\n");
        let err = meta(&["--config", file.path().to_str().unwrap()]).unwrap_err();
        assert_eq!(err.code.exit_code(), 2);
        assert!(
            err.what.contains("replicaton") && err.what.contains(":2"),
            "{err}"
        );
        assert!(
            err.help
                .as_ref()
                .is_some_and(|help| help.contains("'replication'")),
            "{err}"
        );
    }

    #[test]
    fn a_key_of_the_other_daemon_is_an_error_that_says_so() {
        let file = toml("data = '/d'\nrack = 'r1'\n");
        let err = meta(&["--config", file.path().to_str().unwrap()]).unwrap_err();
        assert!(err.to_string().contains("the other daemon"), "{err}");
    }

    #[test]
    fn a_wrong_value_in_the_file_names_key_and_line() {
        for (text, part) in [
            ("data = '/d'\nheartbeat = '1 parsec'", "heartbeat"),
            ("data = '/d'\nreplication = 0", "replication"),
            ("data = '/d'\nlisten = [1]", "listen"),
            ("data = '/d'\nlisten = 'nowhere'", "listen"),
            ("data = '/d'\nlog-json = 'perhaps'", "log-json"),
        ] {
            let file = toml(text);
            let err = meta(&["--config", file.path().to_str().unwrap()]).unwrap_err();
            assert!(err.what.contains(part) && err.what.contains(":2"), "{err}");
        }
        let file = toml("data = ");
        assert_eq!(
            meta(&["--config", file.path().to_str().unwrap()])
                .unwrap_err()
                .code,
            Code::BadConfig
        );
    }

    #[test]
    fn settings_that_contradict_one_another_are_refused() {
        let data = ["--data", "/d"];
        assert!(
            meta(&[&data[..], &["--replication", "2", "--min-replicas", "3"]].concat()).is_err()
        );
        assert!(
            meta(&[&data[..], &["--heartbeat", "1s", "--serve-lease", "1s"]].concat()).is_err()
        );
        assert!(meta(&[&data[..], &["--heartbeat", "0s"]].concat()).is_err());
        let (config, _) = meta(&[&data[..], &["--replication", "1"]].concat()).unwrap();
        assert_eq!(config.min_replicas, 1);
        assert!(meta(&[]).unwrap_err().what.contains("no data directory"));
    }
}
