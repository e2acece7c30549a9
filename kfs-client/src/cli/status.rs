//! `status`: the cluster on one screen, its health in one word and the reasons for it, each with a code.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use super::units::{size, span};
use kfs_core::health::{Health, Reason, reasons};
use kfs_core::wire::client_meta::{
    CheckpointAge, CheckpointStatus, ClusterStatus, DrainStatus, LogMirror, ServerState,
    ServerStatus,
};
use serde::Serialize;

/// The health, as JSON.
#[derive(Serialize, Debug)]
struct HealthShape {
    level: Health,
    reasons: Vec<Reason>,
}

/// The cluster, as JSON.
#[derive(Serialize, Debug)]
struct Shape<'a> {
    health: HealthShape,
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
    removed_files: u64,
    removed_directories: u64,
    removed_entries: u64,
    reclaimed: u64,
    copies_waiting: u64,
    copies_running: u64,
    copies_made: u64,
    copies_made_bytes: u64,
    copies_failed: u64,
    replicas_trimmed: u64,
    replication: u8,
    min_replicas: u8,
    read_only: Option<&'a str>,
    changes_wait: Option<&'a str>,
    tail_lost: bool,
    checkpoint: Option<u64>,
    checkpoint_age_s: Option<u64>,
    checkpoint_before_start: Option<bool>,
    checkpoint_failed: Option<&'a str>,
    log_mirror: bool,
    log_repaired: Option<&'a [String]>,
    log_caught_up: Option<u64>,
    servers: Vec<ServerShape<'a>>,
}

/// A chunkserver, as JSON.
#[derive(Serialize, Debug)]
pub(crate) struct ServerShape<'a> {
    node: String,
    address: Option<String>,
    rack: &'a str,
    state: &'static str,
    chunks: u64,
    bytes_free: u64,
    bytes_total: u64,
    silent_ms: Option<u64>,
    drain: Option<DrainShape>,
}

#[derive(Serialize, Debug)]
struct DrainShape {
    state: &'static str,
    chunks_left: Option<u64>,
    bytes_left: Option<u64>,
    chunks_written: u64,
    chunks_stuck: u64,
}

impl DrainShape {
    fn of(drain: DrainStatus) -> Self {
        let left = drain.left();
        let counted = |count: u64| (drain != DrainStatus::Counting).then_some(count);
        Self {
            state: drain.word(),
            chunks_left: counted(left.chunks),
            bytes_left: counted(left.bytes),
            chunks_written: left.written,
            chunks_stuck: left.stuck,
        }
    }
}

impl<'a> ServerShape<'a> {
    pub(crate) fn new(server: &'a ServerStatus) -> Self {
        Self {
            node: server.node.to_string(),
            address: server.addr.map(|addr| addr.to_string()),
            rack: &server.rack,
            state: server.state.word(),
            chunks: server.chunks,
            bytes_free: server.bytes_free,
            bytes_total: server.bytes_total,
            silent_ms: server
                .silent
                .map(|silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
            drain: server.drain.map(DrainShape::of),
        }
    }
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

fn shape<'a>(status: &'a ClusterStatus, reasons: Vec<Reason>) -> Shape<'a> {
    Shape {
        health: HealthShape {
            level: Health::of(&reasons),
            reasons,
        },
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
        removed_files: status.reclaim.files,
        removed_directories: status.reclaim.directories,
        removed_entries: status.reclaim.entries,
        reclaimed: status.reclaim.done,
        copies_waiting: status.replication_work.waiting,
        copies_running: status.replication_work.copying,
        copies_made: status.replication_work.copied,
        copies_made_bytes: status.replication_work.copied_bytes,
        copies_failed: status.replication_work.failed,
        replicas_trimmed: status.replication_work.trimmed,
        replication: status.replication,
        min_replicas: status.min_replicas,
        read_only: status.read_only.as_deref(),
        changes_wait: status.changes_wait.as_deref(),
        tail_lost: status.tail_lost,
        checkpoint: status.checkpoint.newest.map(|seq| seq.0),
        checkpoint_age_s: status.checkpoint.age.map(|age| age.at_least().as_secs()),
        checkpoint_before_start: status
            .checkpoint
            .age
            .map(|age| matches!(age, CheckpointAge::Over(_))),
        checkpoint_failed: status.checkpoint.failed.as_deref(),
        log_mirror: status.log_mirror.is_some(),
        log_repaired: status.log_mirror.as_deref().map(|mirror| &*mirror.repaired),
        log_caught_up: status.log_mirror.as_deref().map(|mirror| mirror.caught_up),
        servers: status.servers.iter().map(ServerShape::new).collect(),
    }
}

fn lines(status: &ClusterStatus, reasons: &[Reason]) -> Vec<String> {
    let mut lines = vec![Health::of(reasons).word().to_owned()];
    for reason in reasons {
        let weight = if reason.level == Health::Err {
            "error"
        } else {
            "warning"
        };
        lines.push(format!("  {weight} {}: {}", reason.code, reason.text));
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
            "log      at {}, durable to {}{}; {}",
            status.log_seq,
            status.log_durable,
            match status.log_mirror.as_deref() {
                None => String::new(),
                Some(LogMirror { caught_up: 0, .. }) => ", mirrored".to_owned(),
                Some(LogMirror { caught_up, .. }) =>
                    format!(", mirrored ({caught_up} files brought up to date at the start)"),
            },
            checkpoint(&status.checkpoint)
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
    let reclaim = &*status.reclaim;
    if reclaim.files + reclaim.directories > 0 {
        lines.push(format!(
            "reclaim  {} removed files are open or wait; {} removed directories with {} names or more; {} are done",
            reclaim.files, reclaim.directories, reclaim.entries, reclaim.done
        ));
    }
    let copies = &*status.replication_work;
    if copies.waiting + copies.copying > 0 {
        lines.push(format!(
            "copies   {} being made, {} wait or more; {} made since the start ({})",
            copies.copying,
            copies.waiting,
            copies.copied,
            size(copies.copied_bytes)
        ));
    }
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
        let drain = server.drain.map(drain).unwrap_or_default();
        lines.push(format!(
            "  {:<22} {:<8} {:>7} chunks  {room}{rack}{drain}",
            server.address(),
            server.state.word(),
            server.chunks
        ));
    }
    lines
}

/// How far a server is drained, as the end of its line.
fn drain(drain: DrainStatus) -> String {
    match drain {
        DrainStatus::Counting => "  draining".into(),
        DrainStatus::Drained => "  drained: may be stopped".into(),
        DrainStatus::Left(left) => {
            let mut text = format!(
                "  draining: {} chunks left, {}",
                left.chunks,
                size(left.bytes)
            );
            if left.written > 0 {
                text += &format!("; {} are being written", left.written);
            }
            if left.stuck > 0 {
                text += &format!("; {} can go nowhere", left.stuck);
            }
            text
        }
    }
}

/// The newest checkpoint, and how old what is in it is.
fn checkpoint(status: &CheckpointStatus) -> String {
    let Some(seq) = status.newest else {
        return "no checkpoint yet".into();
    };
    let old = match status.age {
        Some(CheckpointAge::Exactly(age)) => format!(", {} ago", span(age)),
        Some(CheckpointAge::Over(age)) => format!(", before this start {} ago", span(age)),
        None => String::new(),
    };
    format!("newest checkpoint at {seq}{old}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kfs_core::ids::{ClusterId, Epoch, LogSeq, NodeId};
    use kfs_core::wire::client_meta::DrainLeft;
    use std::time::Duration;

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
            drain: None,
        }
    }

    pub(crate) fn cluster() -> ClusterStatus {
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
            changes_wait: None,
            tail_lost: false,
            checkpoint: Box::default(),
            reclaim: Box::default(),
            replication_work: Box::default(),
            log_mirror: None,
            servers: (1..=3).map(|n| server(n, ServerState::Up)).collect(),
        }
    }

    fn codes(status: &ClusterStatus) -> (Health, Vec<&'static str>) {
        let reasons = reasons(status);
        (
            Health::of(&reasons),
            reasons.iter().map(|reason| reason.code).collect(),
        )
    }

    #[test]
    fn a_whole_cluster_is_well() {
        assert_eq!(codes(&cluster()), (Health::Ok, vec![]));
    }

    #[test]
    fn the_age_of_the_newest_checkpoint_is_told_as_far_as_it_is_known() {
        let mut status = cluster();
        let said = |status: &ClusterStatus| lines(status, &[])[2].clone();
        assert!(said(&status).ends_with("; no checkpoint yet"));
        status.checkpoint.newest = Some(LogSeq(2));
        status.checkpoint.age = Some(CheckpointAge::Exactly(Duration::from_secs(120)));
        assert!(said(&status).ends_with("; newest checkpoint at 2, 2 min ago"));
        status.checkpoint.age = Some(CheckpointAge::Over(Duration::from_secs(7)));
        assert!(said(&status).ends_with("; newest checkpoint at 2, before this start 7 s ago"));
    }

    #[test]
    fn what_was_removed_and_is_not_reclaimed_is_counted() {
        let mut status = cluster();
        let said = |status: &ClusterStatus| lines(status, &[]).concat();
        assert!(!said(&status).contains("reclaim"));
        (status.reclaim.files, status.reclaim.directories) = (2, 3);
        (status.reclaim.entries, status.reclaim.done) = (400, 5_000);
        let text = said(&status);
        for part in [
            "2 removed files",
            "3 removed directories",
            "400 names",
            "5000 are done",
        ] {
            assert!(text.contains(part), "{part} in: {text}");
        }
    }

    #[test]
    fn a_lost_server_is_named() {
        let mut status = cluster();
        status.servers[0].state = ServerState::Down;
        status.chunks_under_replicated = 1;
        assert_eq!(
            codes(&status),
            (Health::Warn, vec!["SERVERS_DOWN", "UNDER_REPLICATED"])
        );
        assert!(
            lines(&status, &reasons(&status))
                .join("\n")
                .contains(&status.servers[0].node.to_string())
        );
        status.servers[1].state = ServerState::Joining;
        assert_eq!(codes(&status).1[0], "FEW_SERVERS");
    }

    #[test]
    fn who_is_drained_is_told_how_far_and_is_not_missed_when_it_is_gone() {
        let mut status = cluster();
        let said = |status: &ClusterStatus| lines(status, &[]).join("\n");
        let mut left = DrainLeft {
            chunks: 7,
            bytes: 3 << 20,
            ..DrainLeft::default()
        };
        status.servers[0].drain = Some(DrainStatus::Left(left));
        assert!(said(&status).contains("draining: 7 chunks left, 3.0 MiB\n"));
        assert_eq!(codes(&status), (Health::Ok, vec![]));
        left.stuck = 2;
        status.servers[0].drain = Some(DrainStatus::Left(left));
        assert_eq!(codes(&status), (Health::Warn, vec!["DRAIN_STUCK"]));
        status.servers[0].state = ServerState::Down;
        assert_eq!(codes(&status).1, ["SERVERS_DOWN", "DRAIN_STUCK"]);
        status.servers[0].drain = Some(DrainStatus::Drained);
        assert!(said(&status).contains("drained: may be stopped"));
        assert_eq!(codes(&status), (Health::Ok, vec![]));
    }

    #[test]
    fn a_chunk_that_cannot_be_read_is_an_error_and_comes_first() {
        let status = ClusterStatus {
            chunks_unknown: 2,
            chunks_unavailable: 2,
            ..cluster()
        };
        assert_eq!(
            codes(&status),
            (Health::Err, vec!["CHUNKS_UNAVAILABLE", "CHUNKS_UNKNOWN"])
        );
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
            (Health::Err, vec!["READ_ONLY", "SERVERS_FULL"])
        );
    }

    #[test]
    fn changes_that_wait_after_a_start_are_told() {
        let status = ClusterStatus {
            changes_wait: Some("1 of 3 have said hello".into()),
            ..cluster()
        };
        assert_eq!(codes(&status), (Health::Warn, vec!["CHANGES_WAIT"]));
        assert!(
            lines(&status, &reasons(&status))
                .join("\n")
                .contains("1 of 3")
        );
    }
}
