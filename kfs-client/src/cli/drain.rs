//! `kfs drain`: a chunkserver gives away what it has, so that it may be stopped for good.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Drain, ServerState, ServerStatus};
use serde::Serialize;

#[derive(Serialize, Debug)]
struct Shape {
    did: &'static str,
    node: String,
    address: Option<String>,
    chunks: u64,
}

/// Which of the two is asked for.
pub(crate) const fn wanted(undo: bool) -> Drain {
    if undo { Drain::End } else { Drain::Begin }
}

/// Begins to drain a server, or ends that.
pub(crate) async fn drain(
    reach: &Reach,
    screen: &Screen,
    name: &str,
    drain: Drain,
) -> Result<Exit, Failure> {
    let status = reach.kfs.status().await?;
    let server = named(&status.servers, name)?;
    reach.kfs.drain(server.node, drain).await?;
    let (address, chunks) = (server.address(), server.chunks);
    let did = match drain {
        Drain::Begin => "drains",
        Drain::End => "stays",
    };
    screen.json(&Shape {
        did,
        node: server.node.to_string(),
        address: server.addr.map(|addr| addr.to_string()),
        chunks,
    })?;
    screen.line(match drain {
        Drain::Begin => format!(
            "draining {address}, which has {chunks} chunks: 'kfs status' shows what is left, and says when it may be stopped"
        ),
        Drain::End => format!("{address} keeps what it still has, and gets chunks and copies again"),
    })?;
    Ok(Exit::Done)
}

/// The server that is meant: by its node id, or by an address that one server has, or one that is up.
fn named<'a>(servers: &'a [ServerStatus], name: &str) -> Result<&'a ServerStatus, Failure> {
    let by_node = servers.iter().find(|at| at.node.to_string() == name);
    if let Some(server) = by_node {
        return Ok(server);
    }
    let has = |at: &&ServerStatus| at.addr.is_some_and(|addr| addr.to_string() == name);
    let found: Vec<_> = servers.iter().filter(has).collect();
    let up = |at: &&&ServerStatus| at.state == ServerState::Up;
    match found.as_slice() {
        [server] => Ok(server),
        [] => {
            let what =
                format!("no chunkserver is called {name}: 'kfs status' shows those there are");
            Err(Failure::new(Status::NotFound, what))
        }
        several => several.iter().find(up).copied().ok_or_else(|| {
            let what = format!("several chunkservers were at {name}: name one by its node id");
            Failure::new(Status::BadRequest, what)
        }),
    }
}
