//! `status`: the cluster on one screen, its health in one word and the reasons for it, each with a code.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use super::units::size;
use kfs_core::wire::client_meta::{ClusterStatus, ServerState, ServerStatus};
use serde::Serialize;

/// A server with less room than this share of its bytes is worth a word: a chunk is 64 MiB, and a disk
/// this full has been filling for a while.
const NEARLY_FULL: f64 = 0.05;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
enum Health {
    #[serde(rename = "HEALTH_OK")]
    Ok,
    #[serde(rename = "HEALTH_WARN")]
    Warn,
    #[serde(rename = "HEALTH_ERR")]
    Err,
}

impl Health {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "HEALTH_OK",
            Self::Warn => "HEALTH_WARN",
            Self::Err => "HEALTH_ERR",
        }
    }
}

/// Why the health is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Reason {
    code: &'static str,
    severity: Health,
    what: String,
}

/// The cluster, as JSON.
#[derive(Serialize, Debug)]
struct Shape<'a> {
    health: Health,
    reasons: Vec<Reason>,
    cluster: String,
    epoch: u32,
    build: &'a str,
    log_seq: u64,
    log_durable: u64,
    files: u64,
    directories: u64,
    chunks: u64,
    bytes: u64,
    chunks_under_replicated: u64,
    chunks_unavailable: u64,
    replicas_damaged: u64,
    chunks_unknown: u64,
    sessions: u64,
    replication: u8,
    min_replicas: u8,
    read_only: Option<&'a str>,
    servers: Vec<ServerShape<'a>>,
}

#[derive(Serialize, Debug)]
struct ServerShape<'a> {
    node: String,
    address: Option<String>,
    rack: &'a str,
    state: &'static str,
    chunks: u64,
    bytes_free: u64,
    bytes_total: u64,
    silent_ms: Option<u64>,
}

/// Shows it.
pub(crate) async fn status(reach: &Reach, screen: &Screen) -> Result<Exit, Failure> {
    let status = reach.kfs.status().await?;
    let reasons = reasons(&status);
    screen.json(&shape(&status, reasons.clone()))?;
    for line in lines(&status, &reasons) {
        screen.line(line)?;
    }
    Ok(Exit::Done)
}

fn reasons(status: &ClusterStatus) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut add = |severity, code, what| {
        reasons.push(Reason {
            code,
            severity,
            what,
        })
    };
    let up: Vec<&ServerStatus> = status
        .servers
        .iter()
        .filter(|server| server.state == ServerState::Up)
        .collect();
    if let Some(why) = &status.read_only {
        add(
            Health::Err,
            "READ_ONLY",
            format!("changes are refused: {why}"),
        );
    }
    if up.len() < usize::from(status.min_replicas) {
        let what = format!(
            "{} of {} chunkservers are up, {} are needed to write",
            up.len(),
            status.servers.len(),
            status.min_replicas
        );
        add(Health::Err, "TOO_FEW_SERVERS", what);
    }
    for server in status
        .servers
        .iter()
        .filter(|server| server.state != ServerState::Up)
    {
        let since = server.silent.map_or(String::new(), |silent| {
            format!(", silent for {} s", silent.as_secs())
        });
        add(
            Health::Warn,
            "SERVER_DOWN",
            format!(
                "chunkserver {} is {}{since}",
                address(server),
                state(server.state)
            ),
        );
    }
    for server in up.iter().filter(|server| free_share(server) < NEARLY_FULL) {
        add(
            Health::Warn,
            "SERVER_FULL",
            format!(
                "chunkserver {} has {} left",
                address(server),
                size(server.bytes_free)
            ),
        );
    }
    let mut count = |severity, code, number: u64, what: &str| {
        if number > 0 {
            reasons.push(Reason {
                code,
                severity,
                what: format!("{number} {what}"),
            });
        }
    };
    let missing = status.chunks_unavailable;
    count(
        Health::Err,
        "CHUNKS_UNAVAILABLE",
        missing,
        "chunks have no replica on a server that is up: they cannot be read now",
    );
    count(
        Health::Warn,
        "CHUNKS_UNDER_REPLICATED",
        status.chunks_under_replicated.saturating_sub(missing),
        "chunks have fewer replicas than their file asks for",
    );
    count(
        Health::Warn,
        "REPLICAS_DAMAGED",
        status.replicas_damaged,
        "replicas are damaged and serve nothing",
    );
    count(
        Health::Warn,
        "CHUNKS_UNKNOWN",
        status.chunks_unknown,
        "chunks on servers are unknown to the log; they are left where they are",
    );
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.severity));
    reasons
}

fn health(reasons: &[Reason]) -> Health {
    reasons
        .iter()
        .map(|reason| reason.severity)
        .max()
        .unwrap_or(Health::Ok)
}

fn free_share(server: &ServerStatus) -> f64 {
    if server.bytes_total == 0 {
        0.0
    } else {
        server.bytes_free as f64 / server.bytes_total as f64
    }
}

fn address(server: &ServerStatus) -> String {
    server
        .addr
        .map_or_else(|| server.node.to_string(), |addr| addr.to_string())
}

const fn state(state: ServerState) -> &'static str {
    match state {
        ServerState::Up => "up",
        ServerState::Joining => "joining",
        ServerState::Down => "down",
    }
}

fn shape<'a>(status: &'a ClusterStatus, reasons: Vec<Reason>) -> Shape<'a> {
    let server = |server: &'a ServerStatus| ServerShape {
        node: server.node.to_string(),
        address: server.addr.map(|addr| addr.to_string()),
        rack: &server.rack,
        state: state(server.state),
        chunks: server.chunks,
        bytes_free: server.bytes_free,
        bytes_total: server.bytes_total,
        silent_ms: server
            .silent
            .map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
    };
    Shape {
        health: health(&reasons),
        reasons,
        cluster: status.cluster.to_string(),
        epoch: status.epoch.0,
        build: &status.build,
        log_seq: status.log_seq.0,
        log_durable: status.log_durable.0,
        files: status.files,
        directories: status.directories,
        chunks: status.chunks,
        bytes: status.bytes,
        chunks_under_replicated: status.chunks_under_replicated,
        chunks_unavailable: status.chunks_unavailable,
        replicas_damaged: status.replicas_damaged,
        chunks_unknown: status.chunks_unknown,
        sessions: status.sessions,
        replication: status.replication,
        min_replicas: status.min_replicas,
        read_only: status.read_only.as_deref(),
        servers: status.servers.iter().map(server).collect(),
    }
}

fn lines(status: &ClusterStatus, reasons: &[Reason]) -> Vec<String> {
    let mut lines = vec![health(reasons).word().to_owned()];
    for reason in reasons {
        let weight = if reason.severity == Health::Err {
            "error"
        } else {
            "warning"
        };
        lines.push(format!("  {weight} {}: {}", reason.code, reason.what));
    }
    let up = status
        .servers
        .iter()
        .filter(|server| server.state == ServerState::Up)
        .count();
    lines.extend([
        format!(
            "cluster  {}, epoch {}, {}",
            status.cluster, status.epoch, status.build
        ),
        format!(
            "log      at {}, durable to {}",
            status.log_seq, status.log_durable
        ),
        format!(
            "files    {} in {} directories, {}",
            status.files,
            status.directories,
            size(status.bytes)
        ),
        format!(
            "chunks   {}; {} under-replicated, {} unavailable, {} replicas damaged, {} unknown",
            status.chunks,
            status.chunks_under_replicated,
            status.chunks_unavailable,
            status.replicas_damaged,
            status.chunks_unknown
        ),
        format!("clients  {} sessions", status.sessions),
        format!(
            "servers  {up} of {} up; replication {}, at least {} to write",
            status.servers.len(),
            status.replication,
            status.min_replicas
        ),
    ]);
    for server in &status.servers {
        let rack = if server.rack.is_empty() {
            String::new()
        } else {
            format!("  rack {}", server.rack)
        };
        let room = format!(
            "{} of {} free",
            size(server.bytes_free),
            size(server.bytes_total)
        );
        lines.push(format!(
            "  {:<22} {:<8} {:>7} chunks  {room}{rack}",
            address(server),
            state(server.state),
            server.chunks
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::ids::{ClusterId, Epoch, LogSeq, NodeId};

    fn server(number: u128, state: ServerState) -> ServerStatus {
        ServerStatus {
            node: NodeId(number),
            addr: None,
            rack: String::new(),
            state,
            chunks: 1,
            bytes_free: 50,
            bytes_total: 100,
            silent: None,
        }
    }

    fn cluster() -> ClusterStatus {
        ClusterStatus {
            cluster: ClusterId(1),
            epoch: Epoch(1),
            build: "kfs".into(),
            log_seq: LogSeq(3),
            log_durable: LogSeq(3),
            files: 1,
            directories: 1,
            chunks: 1,
            bytes: 5,
            chunks_under_replicated: 0,
            chunks_unavailable: 0,
            replicas_damaged: 0,
            chunks_unknown: 0,
            sessions: 1,
            replication: 3,
            min_replicas: 2,
            read_only: None,
            servers: (1..=3).map(|n| server(n, ServerState::Up)).collect(),
        }
    }

    fn codes(status: &ClusterStatus) -> (Health, Vec<&'static str>) {
        let reasons = reasons(status);
        (
            health(&reasons),
            reasons.iter().map(|reason| reason.code).collect(),
        )
    }

    #[test]
    fn a_whole_cluster_is_well() {
        assert_eq!(codes(&cluster()), (Health::Ok, vec![]));
    }

    #[test]
    fn a_lost_server_is_a_warning_until_too_few_are_left_to_write() {
        let mut status = cluster();
        status.servers[0].state = ServerState::Down;
        status.chunks_under_replicated = 1;
        assert_eq!(
            codes(&status),
            (Health::Warn, vec!["SERVER_DOWN", "CHUNKS_UNDER_REPLICATED"])
        );
        status.servers[1].state = ServerState::Joining;
        assert_eq!(codes(&status).0, Health::Err);
        assert_eq!(
            codes(&status).1[0],
            "TOO_FEW_SERVERS",
            "what is worst comes first"
        );
    }

    #[test]
    fn a_chunk_that_cannot_be_read_is_an_error_and_is_not_counted_twice() {
        let status = ClusterStatus {
            chunks_under_replicated: 2,
            chunks_unavailable: 2,
            ..cluster()
        };
        assert_eq!(codes(&status), (Health::Err, vec!["CHUNKS_UNAVAILABLE"]));
    }

    #[test]
    fn a_full_server_and_a_read_only_log_are_told() {
        let mut status = ClusterStatus {
            read_only: Some("no space".into()),
            ..cluster()
        };
        status.servers[2].bytes_free = 4;
        assert_eq!(
            codes(&status),
            (Health::Err, vec!["READ_ONLY", "SERVER_FULL"])
        );
    }
}
