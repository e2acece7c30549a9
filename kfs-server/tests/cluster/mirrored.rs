//! The mirror of the log, on real files: what is damaged in one copy is taken from the other.
use crate::cluster::files_in;
use crate::daemon::{Daemon, META, http_get, run};
use kfs_client::{Kfs, Options, Ownership, Parents};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const ANY: &str = "127.0.0.1:0";
const BATCH_BYTES: u64 = 4_096;
const OWNER: Ownership = Ownership {
    uid: 7,
    gid: 8,
    mode: 0o750,
};

struct Site {
    dir: TempDir,
    starts: u32,
}

impl Site {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            starts: 0,
        }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn start(&mut self, more: &[&str]) -> Daemon {
        self.starts += 1;
        let data = self.path("data");
        let args = [
            &["--data", text(&data), "--listen", ANY, "--http", ANY],
            more,
        ];
        Daemon::spawn(
            META,
            &args.concat(),
            &self.path(&format!("{}.stderr", self.starts)),
        )
    }
    fn mirrored(&mut self) -> Daemon {
        let mirror = self.path("mirror");
        self.start(&["--log-mirror", text(&mirror)])
    }
    fn log(&self, root: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = files_in(&self.path(root).join("log"));
        files.retain(|name, _| {
            name.strip_prefix("log.")
                .is_some_and(|n| n.parse::<u64>().is_ok())
        });
        files
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn client(meta: &Daemon) -> Kfs {
    Kfs::connect(Options::new(meta.ready().listen))
}

fn spoil(path: &Path, offset: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"rotten", offset + 70).unwrap();
}

/// Where the last batch of a segment begins.
fn last_batch(bytes: &[u8]) -> u64 {
    let pages = bytes
        .chunks(4_096)
        .take_while(|page| page.iter().any(|byte| *byte != 0));
    (pages.count() as u64 - 1) * BATCH_BYTES
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_of_either_copy_of_the_log_loses_nothing() {
    let mut site = Site::new();
    let mut made: Vec<String> = Vec::new();
    for (round, root) in ["data", "mirror", "data", "mirror"].into_iter().enumerate() {
        let mut meta = site.mirrored();
        let kfs = Kfs::connect(Options::new(meta.ready().listen));
        for n in 0..3 {
            made.push(format!("/d{round}-{n}"));
            let dir = made.last().unwrap().as_bytes();
            kfs.mkdir(dir, Parents::MustExist, OWNER).await.unwrap();
        }
        meta.kill();
        let (name, bytes) = site.log(root).pop_last().unwrap();
        let path = site.path(root).join("log").join(&name);
        // In the middle of the segment, or the last that was acked, or its mark.
        let at = if round < 2 {
            2 * BATCH_BYTES
        } else {
            last_batch(&bytes)
        };
        spoil(&path, at);
        let mut meta = site.mirrored();
        let ready = meta.ready();
        let kfs = Kfs::connect(Options::new(ready.listen));
        for dir in &made {
            let attrs = kfs.stat(dir.as_bytes()).await;
            assert!(attrs.is_ok(), "round {round}: {dir} is gone");
        }
        let (_, page) = http_get(ready.http, "/status.json");
        let place = format!("log/{name} at offset {at}");
        assert!(
            page.contains("LOG_REPAIRED") && page.contains(&place),
            "{page}"
        );
        assert!(meta.stderr().contains("a copy of the log is damaged"));
        if round < 2 {
            let kept = std::fs::read(path.with_extension(format!(
                "{}.damaged",
                path.extension().unwrap().to_str().unwrap()
            )));
            assert!(kept.unwrap() == bytes_with(&bytes, at));
        }
        meta.terminate();
        assert_eq!(meta.ended().code, Some(0));
        assert!(site.log("data") == site.log("mirror"), "both are the same");
    }
}

fn bytes_with(bytes: &[u8], at: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = usize::try_from(at).unwrap() + 70;
    bytes[at..at + 6].copy_from_slice(b"rotten");
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_were_changed_are_filled_again_and_a_run_without_the_mirror_is_made_up_for() {
    let mut site = Site::new();
    let dirs = ["/a", "/b", "/c", "/d"];
    for (n, dir) in dirs.iter().enumerate() {
        // The first without the mirror, too.
        let mut meta = match n {
            0 | 2 => site.start(&[]),
            _ => site.mirrored(),
        };
        let kfs = client(&meta);
        kfs.mkdir(dir.as_bytes(), Parents::MustExist, OWNER)
            .await
            .unwrap();
        meta.kill();
    }
    for gone in ["mirror", "data"] {
        std::fs::remove_dir_all(site.path(gone)).unwrap();
        let mut meta = site.mirrored();
        let kfs = client(&meta);
        for dir in dirs {
            assert!(kfs.stat(dir.as_bytes()).await.is_ok(), "{gone}: {dir}");
        }
        meta.terminate();
        assert_eq!(meta.ended().code, Some(0));
        assert!(site.log("data") == site.log("mirror"));
    }
}

#[test]
fn a_mirror_that_is_in_use_or_foreign_or_in_the_data_is_refused() {
    let mut site = Site::new();
    let meta = site.mirrored();
    meta.ready();
    let (mirror, other) = (site.path("mirror"), site.path("other"));
    let args = ["--data", text(&other), "--listen", ANY, "--http", ANY];
    let dir = site.dir.path().to_owned();
    let start = |mirror: &Path| {
        let args = [&args[..], &["--log-mirror", text(mirror)]].concat();
        run(META, &args, &dir)
    };
    let ended = start(&mirror);
    ended.expect(7, "KFS-E064", &[text(&mirror), "in use", "--log-mirror"]);
    drop(meta);
    // The other one is another cluster by now.
    let mut alone = Daemon::spawn(META, &args, &site.path("alone"));
    alone.ready();
    alone.kill();
    let before = (files_in(&mirror.join("log")), files_in(&other.join("log")));
    let ended = start(&mirror);
    ended.expect(7, "KFS-E062", &["log mirror belongs to cluster", "help: "]);
    assert!(before == (files_in(&mirror.join("log")), files_in(&other.join("log"))));
    let ended = start(&other.join("m"));
    ended.expect(2, "KFS-E066", &["in one another", "help: "]);
    assert!(!other.join("m").exists());
    let ended = start(&site.path("data"));
    ended.expect(7, "KFS-E062", &["server's data directory"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_compactor_lets_go_of_goes_from_the_mirror_too_beside_the_server() {
    let mut site = Site::new();
    let (data, mirror) = (site.path("data"), site.path("mirror"));
    let compact = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kfs-logcompactor"));
        let output = command
            .arg("--data")
            .arg(&data)
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // Each start begins a segment: what was before is closed.
    for round in 0..3 {
        let mut meta = site.mirrored();
        let path = format!("/{round}");
        let kfs = client(&meta);
        let made = kfs.mkdir(path.as_bytes(), Parents::Make, OWNER).await;
        made.unwrap();
        if round > 0 {
            compact(&[]);
        }
        meta.kill();
    }
    let mut meta = site.mirrored();
    let ready = meta.ready();
    compact(&[]);
    let names = |site: &Site, root| site.log(root).into_keys().collect::<Vec<_>>();
    assert!(names(&site, "mirror").len() > names(&site, "data").len());
    let said = compact(&["--log-mirror", text(&mirror)]);
    assert!(said.contains("went from the log mirror"), "{said}");
    assert_eq!(names(&site, "mirror"), names(&site, "data"));
    // The newest checkpoint was there before this run of the server made one.
    let (_, page) = http_get(ready.http, "/status.json");
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    let before = &page["cluster"]["checkpoint_before_start"];
    assert!(
        before == true && page["cluster"]["checkpoint_age_s"].is_number(),
        "{page}"
    );
    meta.kill();
    let meta = site.mirrored();
    let kfs = client(&meta);
    for round in 0..3 {
        kfs.stat(format!("/{round}").as_bytes()).await.unwrap();
    }
}
