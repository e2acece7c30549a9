//! A chunkserver whose network is cut: nobody is told, nothing is closed, and it believes that it is one of the cluster.
use crate::cluster::{Cluster, content, expect_content, put, whole};
use crate::daemon::CHUNK;
use crate::written::write_while;
use core::time::Duration;
use std::process::Command;

/// Longer than a lease.
const CUT: Duration = Duration::from_secs(8);

/// A network of two on this machine, as two machines with a cable between them; dropped, it is gone.
struct Cable {
    /// The name of the other machine.
    there: String,
    plug: String,
}

impl Cable {
    const HERE: &str = "10.213.37.1";
    const THERE: &str = "10.213.37.2";

    /// `None`, with the reason on stderr: it cannot be had on this machine.
    fn laid() -> Option<Self> {
        let there = format!("kfs-test-{}", std::process::id());
        let plug = format!("kfs{}", std::process::id());
        let cable = Self { there, plug };
        let laid = cable.lay();
        if let Err(why) = laid {
            eprintln!("skipped, as no network of its own can be had here: {why}");
            return None;
        }
        Some(cable)
    }
    fn lay(&self) -> Result<(), String> {
        let Self { there, plug } = self;
        let (here_net, there_net) = (format!("{}/30", Self::HERE), format!("{}/30", Self::THERE));
        ip(&["netns", "add", there])?;
        let peer = ["peer", "name", "eth0", "netns", there];
        ip(&[&["link", "add", plug, "type", "veth"], &peer[..]].concat())?;
        ip(&["addr", "add", &here_net, "dev", plug])?;
        ip(&["link", "set", plug, "up"])?;
        ip(&["-n", there, "addr", "add", &there_net, "dev", "eth0"])?;
        ip(&["-n", there, "link", "set", "eth0", "up"])?;
        ip(&["-n", there, "link", "set", "lo", "up"])
    }
    fn cut(&self) {
        ip(&["-n", &self.there, "link", "set", "eth0", "down"]).unwrap();
    }
    fn mend(&self) {
        ip(&["-n", &self.there, "link", "set", "eth0", "up"]).unwrap();
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.plug]);
        let _ = ip(&["netns", "del", &self.there]);
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output();
    let output = output.map_err(|error| format!("ip {args:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {args:?}: {}", said.trim()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_goes_on_while_a_member_of_its_chain_is_cut_off_and_when_it_is_back() {
    let Some(cable) = Cable::laid() else { return };
    let here = format!("{}:0", Cable::HERE);
    let there = format!("{}:0", Cable::THERE);
    let mut cluster = Cluster::start_at(&here, &["--re-replicate-after", "1s"]);
    for _ in 0..2 {
        cluster.add_chunk_at(&here, &[CHUNK]);
    }
    cluster.add_chunk_at(&there, &["ip", "netns", "exec", &cable.there, CHUNK]);
    let kfs = cluster.client();
    let before = content(1, 3_000_000);
    put(&kfs, "/before", &before).await;
    let data = write_while(&kfs, ("/f", 3), 6, async |nth| match nth {
        1 => cable.cut(),
        3 => {
            tokio::time::sleep(CUT).await;
            cable.mend();
        }
        _ => {}
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
    expect_content(&cluster.client(), "/before", &before).await;
    whole(&kfs).await;
    // It has all of it again, alone.
    for n in 0..2 {
        cluster.chunks[n].kill();
    }
    expect_content(&cluster.client(), "/f", &data).await;
    expect_content(&cluster.client(), "/before", &before).await;
}
