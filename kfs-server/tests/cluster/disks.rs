//! The disk of one chunkserver is full, read-only, broken or gone: the writer goes on elsewhere, what was synced is
//! there, and the server is one again when its disk is.
//!
//! Each on a small volume of its own, which only root can mount; who is not root, or has no loop device, is told so.
use crate::cluster::{Cluster, content, expect_content, put, whole};
use crate::written::write_while;
use bytes::Bytes;
use kfs_client::Kfs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// An ext4 of its own in a file, mounted where a chunkserver keeps its data; dropped, it is unmounted.
struct Volume {
    at: PathBuf,
    medium: PathBuf,
    image: PathBuf,
}

impl Volume {
    /// Of 200 MiB, of which the medium takes so many and no more. `None`, with the reason on stderr: it cannot be had on
    /// this machine.
    fn mounted(at: &Path, medium_mib: u64) -> Option<Self> {
        let medium = at.with_extension("medium");
        let image = medium.join("image");
        std::fs::create_dir_all(at).unwrap();
        std::fs::create_dir_all(&medium).unwrap();
        let size = format!("size={medium_mib}m");
        let tmpfs = &mut Command::new("mount");
        let tmpfs = tmpfs
            .args(["-t", "tmpfs", "-o", &size, "kfs-test"])
            .arg(&medium);
        if let Err(why) = done(tmpfs) {
            eprintln!("skipped, as no volume can be mounted here: {why}");
            return None;
        }
        std::fs::File::create(&image)
            .unwrap()
            .set_len(200 * MIB)
            .unwrap();
        let volume = Self {
            at: at.to_owned(),
            medium,
            image,
        };
        let made = done(Command::new("mkfs.ext4").arg("-q").arg(&volume.image));
        if let Err(why) = made.and_then(|()| volume.mount()) {
            eprintln!("skipped, as no volume can be mounted here: {why}");
            return None;
        }
        // A new file system has a directory of its own.
        std::fs::remove_dir(at.join("lost+found")).unwrap();
        Some(volume)
    }
    fn mount(&self) -> Result<(), String> {
        done(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&self.image)
                .arg(&self.at),
        )
    }
    /// As the kernel does when it finds the file system damaged: nothing is written there any more.
    fn make_read_only(&self) {
        let mount = &mut Command::new("mount");
        done(mount.args(["-o", "remount,abort"]).arg(&self.at)).unwrap();
    }
    /// Whoever has a file open there keeps it; no name leads there any more.
    fn unmount(&self) {
        done(Command::new("umount").arg("-l").arg(&self.at)).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        for mounted in [&self.at, &self.medium] {
            let _ = Command::new("umount").arg("-l").arg(mounted).output();
        }
    }
}

fn done(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}", said.trim()))
}

/// A cluster of three, the first of which is on a volume of its own.
fn one_on_a_volume(medium_mib: u64) -> Option<(Cluster, Volume)> {
    let mut cluster = Cluster::start_with(0, &["--re-replicate-after", "1s"]);
    let volume = Volume::mounted(&cluster.chunk_dir(0), medium_mib)?;
    cluster.add_chunks(3);
    Some((cluster, volume))
}

/// The server on the volume has met this.
fn said(cluster: &Cluster, what: &str) {
    let said = cluster.chunks[0].stderr();
    assert!(said.contains(what), "'{what}' is not in:\n{said}");
}

/// What is stored before a disk fails, in so many files.
struct Before(Bytes);

impl Before {
    const FILES: usize = 4;

    async fn stored(kfs: &Kfs) -> Self {
        let before = Self(content(1, 3_000_000));
        for nth in 0..Self::FILES {
            put(kfs, &Self::name(nth), &before.0).await;
        }
        before
    }
    async fn expected(&self, cluster: &Cluster) {
        for nth in 0..Self::FILES {
            expect_content(&cluster.client(), &Self::name(nth), &self.0).await;
        }
    }
    fn name(nth: usize) -> String {
        format!("/before{nth}")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_goes_on_elsewhere_when_a_disk_has_no_room_left() {
    let Some((cluster, volume)) = one_on_a_volume(200) else {
        return;
    };
    let kfs = cluster.client();
    let before = Before::stored(&kfs).await;
    // Somebody else fills it up.
    let filler = volume.at.join("filler");
    let data = write_while(&kfs, ("/f", 3), 8, async |nth| {
        if nth == 3 {
            std::fs::write(&filler, vec![7; usize::try_from(200 * MIB).unwrap()]).unwrap_err();
        }
    })
    .await;
    said(&cluster, "no space left");
    expect_content(&cluster.client(), "/f", &data).await;
    before.expected(&cluster).await;
    std::fs::remove_file(&filler).unwrap();
    whole(&kfs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_goes_on_elsewhere_when_a_disk_becomes_read_only() {
    let Some((mut cluster, volume)) = one_on_a_volume(200) else {
        return;
    };
    let kfs = cluster.client();
    let before = Before::stored(&kfs).await;
    let data = write_while(&kfs, ("/f", 3), 6, async |nth| {
        if nth == 2 {
            volume.make_read_only();
        }
    })
    .await;
    said(&cluster, "Read-only file system");
    expect_content(&cluster.client(), "/f", &data).await;
    put(&kfs, "/after", &before.0).await;
    cluster.chunks[0].kill();
    volume.unmount();
    volume.mount().unwrap();
    cluster.restart_chunk(0);
    whole(&kfs).await;
    before.expected(&cluster).await;
    expect_content(&cluster.client(), "/after", &before.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_medium_with_no_room_for_what_its_file_system_took_costs_no_byte() {
    let Some((mut cluster, _volume)) = one_on_a_volume(40) else {
        return;
    };
    let kfs = cluster.client();
    let before = Before::stored(&kfs).await;
    // The file system takes all of it, and the medium does not: that is found out when it is synced.
    let data = write_while(&kfs, ("/f", 3), 12, async |_| ()).await;
    said(&cluster, "no space left");
    expect_content(&cluster.client(), "/f", &data).await;
    put(&kfs, "/after", &before.0).await;
    cluster.chunks[0].kill();
    before.expected(&cluster).await;
    expect_content(&cluster.client(), "/after", &before.0).await;
    expect_content(&cluster.client(), "/f", &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_unmounted_is_no_empty_one() {
    let Some((mut cluster, volume)) = one_on_a_volume(200) else {
        return;
    };
    let kfs = cluster.client();
    let before = Before::stored(&kfs).await;
    let data = write_while(&kfs, ("/f", 3), 6, async |nth| {
        if nth == 2 {
            volume.unmount();
        }
    })
    .await;
    expect_content(&cluster.client(), "/f", &data).await;
    before.expected(&cluster).await;
    put(&kfs, "/after", &before.0).await;
    said(&cluster, "not found");
    let below = std::fs::read_dir(&volume.at).unwrap().count();
    assert_eq!(below, 0, "nothing is made where the volume was");
    volume.mount().unwrap();
    cluster.chunks[0].kill();
    cluster.restart_chunk(0);
    whole(&kfs).await;
    before.expected(&cluster).await;
}
