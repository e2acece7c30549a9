//! `df`: the room in the cluster, server by server, and how much more can be stored in it.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use super::status::ServerShape;
use super::table::{Side, Table};
use super::units::size;
use super::usage::Sizes;
use clap::Args;
use kfs_core::wire::client_meta::{ClusterStatus, ServerState};
use serde::Serialize;

#[derive(Args, Debug)]
pub(crate) struct Df {
    /// Sizes in the unit that fits, as in 1.5 GiB
    #[arg(short, long)]
    human_readable: bool,
    /// Print help: here '-h' says how sizes are shown
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// What all servers that are up have, as JSON.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
struct Total {
    servers: usize,
    servers_up: usize,
    bytes_total: u64,
    bytes_used: u64,
    bytes_free: u64,
    replication: u8,
    /// Of new files, at that replication.
    file_bytes_free: u64,
}

/// Shows it.
pub(crate) async fn df(reach: &Reach, screen: &Screen, asked: &Df) -> Result<Exit, Failure> {
    let status = reach.kfs.status().await?;
    let total = total(&status);
    for server in &status.servers {
        screen.json(&ServerShape::new(server))?;
    }
    screen.json(&total)?;
    let sizes = if asked.human_readable {
        Sizes::Short
    } else {
        Sizes::Bytes
    };
    for line in table(&status, &total, sizes).lines(screen.columns()) {
        screen.line(line)?;
    }
    screen.flush()?;
    screen.note(said(&status, &total));
    Ok(Exit::Done)
}

fn table(status: &ClusterStatus, total: &Total, sizes: Sizes) -> Table {
    let shown = |bytes| match sizes {
        Sizes::Bytes => format!("{bytes}"),
        Sizes::Short => size(bytes),
    };
    let mut table = Table::new(&[
        ("SERVER", Side::Left),
        ("STATE", Side::Left),
        ("SIZE", Side::Right),
        ("USED", Side::Right),
        ("FREE", Side::Right),
        ("USE%", Side::Right),
    ]);
    for server in &status.servers {
        let used = server.bytes_total.saturating_sub(server.bytes_free);
        table.row([
            server.address(),
            server.state.word().into(),
            shown(server.bytes_total),
            shown(used),
            shown(server.bytes_free),
            percent(used, server.bytes_total),
        ]);
    }
    table.row([
        "all that are up".into(),
        format!("{}/{}", total.servers_up, total.servers),
        shown(total.bytes_total),
        shown(total.bytes_used),
        shown(total.bytes_free),
        percent(total.bytes_used, total.bytes_total),
    ]);
    table
}

/// Rounded up: a server of which anything is used is not at 0 %, and one with room left may be at 100.
fn percent(used: u64, total: u64) -> String {
    if total == 0 {
        return "-".into();
    }
    let percent = (u128::from(used) * 100).div_ceil(u128::from(total));
    format!("{percent}%")
}

fn total(status: &ClusterStatus) -> Total {
    let up = || {
        let servers = status.servers.iter();
        servers.filter(|server| server.state == ServerState::Up)
    };
    let sum = |of: fn(&kfs_core::wire::client_meta::ServerStatus) -> u64| {
        up().map(of).fold(0, u64::saturating_add)
    };
    let free: Vec<u64> = up().map(|server| server.bytes_free).collect();
    let (bytes_total, bytes_free) = (
        sum(|server| server.bytes_total),
        sum(|server| server.bytes_free),
    );
    Total {
        servers: status.servers.len(),
        servers_up: free.len(),
        bytes_total,
        bytes_used: bytes_total.saturating_sub(bytes_free),
        bytes_free,
        replication: status.replication,
        file_bytes_free: fits(&free, status.replication),
    }
}

/// How many bytes fit so many times, each time on another server: a server with more room than that does not help.
fn fits(free: &[u64], replicas: u8) -> u64 {
    let replicas = u128::from(replicas.max(1));
    let does = |bytes: u64| {
        let takes = free.iter().map(|free| u128::from(bytes.min(*free)));
        takes.sum::<u128>() >= u128::from(bytes) * replicas
    };
    let room = free.iter().map(|free| u128::from(*free)).sum::<u128>() / replicas;
    let (mut fits, mut above) = (0, u64::try_from(room).unwrap_or(u64::MAX));
    while fits < above {
        let bytes = above - (above - fits) / 2;
        if does(bytes) {
            fits = bytes;
        } else {
            above = bytes - 1;
        }
    }
    fits
}

fn said(status: &ClusterStatus, total: &Total) -> String {
    let mut text = if total.servers_up < usize::from(total.replication) {
        format!(
            "{} servers are up: no file can have {} replicas until more are",
            total.servers_up, total.replication
        )
    } else {
        format!(
            "about {} of new files fit, with {} replicas of each",
            size(total.file_bytes_free),
            total.replication
        )
    };
    text.push_str(&format!(
        "; {} are stored in {} files. Servers that share a disk each count all of it.",
        size(status.bytes),
        status.files
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_more_room_than_the_others_does_not_help() {
        for (free, replicas, bytes) in [
            (&[][..], 3, 0),
            (&[9, 9], 3, 0),
            (&[9, 9, 9], 3, 9),
            (&[100, 9, 9], 3, 9),
            (&[100, 100, 9, 9], 3, 18),
            (&[10, 10, 10, 10], 3, 13),
            (&[10, 20, 0, 10], 1, 40),
            (&[u64::MAX, u64::MAX], 2, u64::MAX),
        ] {
            assert_eq!(fits(free, replicas), bytes, "{free:?} {replicas}");
        }
    }

    #[test]
    fn a_share_is_never_said_to_be_less_than_it_is() {
        for (used, total, text) in [
            (0, 0, "-"),
            (0, 10, "0%"),
            (1, 1_000, "1%"),
            (999, 1_000, "100%"),
            (u64::MAX, u64::MAX, "100%"),
        ] {
            assert_eq!(percent(used, total), text);
        }
    }
}
