//! `servers`: the chunkservers of the cluster, a line each.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use super::status::ServerShape;
use super::table::{Side, Table};
use super::units::{size, span};
use kfs_core::wire::client_meta::{ServerState, ServerStatus};

/// Shows every server that ever joined.
pub(crate) async fn servers(reach: &Reach, screen: &Screen) -> Result<Exit, Failure> {
    let status = reach.kfs.status().await?;
    let mut table = Table::new(&[
        ("ADDRESS", Side::Left),
        ("STATE", Side::Left),
        ("RACK", Side::Left),
        ("CHUNKS", Side::Right),
        ("USED", Side::Right),
        ("FREE", Side::Right),
        ("HEARD", Side::Right),
        ("ID", Side::Left),
    ]);
    for server in &status.servers {
        screen.json(&ServerShape::new(server))?;
        table.row(row(server));
    }
    for line in table.lines(screen.columns()) {
        screen.line(line)?;
    }
    screen.flush()?;
    let up = status
        .servers
        .iter()
        .filter(|server| server.state == ServerState::Up)
        .count();
    screen.note(format!("{up} of {} up", status.servers.len()));
    Ok(Exit::Done)
}

fn row(server: &ServerStatus) -> [String; 8] {
    let unknown = || "-".to_owned();
    let heard = server.silent.map(|silent| format!("{} ago", span(silent)));
    [
        server.addr.map_or_else(unknown, |addr| addr.to_string()),
        server.state.word().into(),
        Some(server.rack.clone())
            .filter(|rack| !rack.is_empty())
            .unwrap_or_else(unknown),
        server.chunks.to_string(),
        size(server.bytes_total.saturating_sub(server.bytes_free)),
        size(server.bytes_free),
        heard.unwrap_or_else(unknown),
        server.node.to_string(),
    ]
}
