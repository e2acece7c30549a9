//! `scripts/backup` and `scripts/restore`, with the real rsync, against a meta server that serves meanwhile.
use crate::cluster::{Cluster, Said, command, content, run, text, wait};
use kfs_server::{MetaConfig, MetaServer};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn script(name: &str, arguments: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut script = Command::new(root.join("scripts").join(name));
    script
        .args(arguments)
        .env("KFS", env!("CARGO_BIN_EXE_kfs"))
        .env_remove("RSYNC_RSH");
    script
}

fn out(said: &Said) -> String {
    String::from_utf8(said.out.clone()).unwrap()
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let said = run(command);
    assert_eq!(said.code, Some(0), "{}{}", out(&said), said.err);
    out(&said)
}

/// The sets at a target, oldest first.
fn sets(target: &Path) -> Vec<String> {
    let names = fs::read_dir(target).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("00"))
        .collect();
    names.sort();
    names
}

fn latest(target: &Path) -> String {
    let latest = fs::read_link(target.join("latest")).unwrap();
    latest.into_os_string().into_string().unwrap()
}

/// The segments of a log, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log")).unwrap();
    let mut segments: Vec<(u64, PathBuf)> = entries
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let first = path.extension()?.to_str()?.parse().ok()?;
            Some((first, path))
        })
        .collect();
    segments.sort();
    segments.into_iter().map(|(_, path)| path).collect()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x08;
    // In place: whoever has a link to it has the same bit.
    fs::write(file, bytes).unwrap();
}

/// The names that a meta server started on a directory knows.
fn names(dir: &Path) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = MetaServer::start(MetaConfig::embedded(dir.to_owned())).unwrap();
    runtime.block_on(server.ready()).unwrap();
    let said = run(command(&["ls", "/"]).env("KFS_META", server.listen.to_string()));
    let listed = out(&said);
    runtime.block_on(server.stop());
    assert_eq!(said.code, Some(0), "{}", said.err);
    listed.lines().map(str::to_owned).collect()
}

/// The data of a meta server that has been started three times, so that its log has closed segments; and where its
/// backup goes.
fn stored() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for name in ["/a", "/b", "/c"] {
        let made = run(&mut command(&["--local", text(&data), "mkdir", name]));
        assert_eq!(made.code, Some(0), "{made:?}");
    }
    let target = dir.path().join("backup");
    (dir, data.join("meta"), target)
}

/// Dropped, it says that something has ended.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_copy_taken_while_batches_are_written_and_files_pruned_has_all_that_was_acked_before() {
    let cluster = Cluster::new();
    let source = cluster.dir.path().join("meta");
    let target = cluster.dir.path().join("backup");
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        // Two who change names, and one who has checkpoints made and segments removed.
        for writer in 0..2 {
            let (cluster, stop) = (&cluster, &stop);
            threads.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    cluster.ok(&["mkdir", &format!("/busy-{writer}-{n}")]);
                }
            });
        }
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                cluster.ok(&["checkpoint"]);
            }
        });
        // Those who are busy end also when this fails.
        let _ends = Ends(&stop);
        for round in 0..4 {
            cluster.store(&format!("/acked-{round}"), &content(10_000));
            let said = done(&mut script("backup", &[text(&source), text(&target)]));
            assert!(said.contains("verified, up to record "), "{said}");
            let restored = cluster.dir.path().join(format!("restored-{round}"));
            let said = done(&mut script("restore", &[text(&target), text(&restored)]));
            let record = latest(&target).rsplit('-').next().unwrap().to_owned();
            assert!(
                said.contains(&format!("whole up to record {record}")),
                "{said}"
            );
            let names = names(&restored);
            for acked in 0..=round {
                assert!(names.contains(&format!("acked-{acked}")), "{names:?}");
            }
        }
    });
    assert_eq!(sets(&target).len(), 4);
    assert!(!source.join(".backup-stage").exists());
}

#[test]
fn what_is_lost_or_damaged_at_the_source_is_never_lost_in_the_last_good_set() {
    let (dir, source, target) = stored();
    let mut backup = script("backup", &[text(&source), text(&target)]);
    done(&mut backup);
    let good = latest(&target);

    let closed = segments(&source).remove(1);
    let whole = fs::read(&closed).unwrap();
    flip(&closed, 4_096 + 70);
    run(&mut backup).failed(6, &["is damaged; the sets at"]);
    fs::write(&closed, &whole).unwrap();

    let away = dir.path().join("away");
    fs::rename(&closed, &away).unwrap();
    run(&mut backup).failed(6, &["is damaged"]);
    fs::rename(&away, &closed).unwrap();
    fs::remove_file(segments(&source).pop().unwrap()).unwrap();
    run(&mut backup).failed(7, &["was it set back?"]);
    fs::rename(source.join("log"), dir.path().join("log")).unwrap();
    fs::create_dir(source.join("log")).unwrap();
    run(&mut backup).failed(6, &["has no log"]);
    fs::rename(source.join("identity"), dir.path().join("identity")).unwrap();
    run(&mut backup).failed(3, &["identity"]);
    fs::remove_dir_all(&source).unwrap();
    run(&mut backup).failed(1, &["there is no"]);

    assert_eq!((latest(&target), sets(&target).len()), (good, 1));
    let restored = dir.path().join("restored");
    done(&mut script("restore", &[text(&target), text(&restored)]));
    assert_eq!(names(&restored), ["a", "b", "c"]);
}

#[test]
fn a_set_that_rotted_does_not_rot_the_next_one_and_is_not_restored() {
    let (dir, source, target) = stored();
    let mut backup = script("backup", &[text(&source), text(&target)]);
    done(&mut backup);
    let rotten = target.join(latest(&target));
    let closed = segments(&rotten).remove(0);
    // With its size and its time: a copy by these alone would take it for good.
    let modified = fs::metadata(&closed).unwrap().modified().unwrap();
    flip(&closed, 4_096 + 70);
    let file = fs::File::open(&closed).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified))
        .unwrap();

    let restored = dir.path().join("restored");
    let said = run(&mut script("restore", &[text(&target), text(&restored)]));
    said.failed(6, &["is damaged"]);
    assert!(
        !restored.join("identity").exists(),
        "no server starts on it"
    );

    done(&mut backup);
    let next = target.join(latest(&target));
    assert_ne!(next, rotten);
    let said = run(&mut command(&["verify", text(&next)]));
    assert_eq!(said.code, Some(0), "{said:?}");
    // A third one finds nothing to send of what is closed.
    done(&mut backup);
    let third = target.join(latest(&target));
    let same = |file: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(file).unwrap().ino()
    };
    assert_eq!(same(&segments(&next)[0]), same(&segments(&third)[0]));
    assert_ne!(same(&segments(&next)[0]), same(&segments(&rotten)[0]));
}

#[test]
fn the_oldest_sets_go_and_a_target_of_another_cluster_is_left_alone() {
    let (dir, source, target) = stored();
    let mut backup = script("backup", &["--keep", "2", text(&source), text(&target)]);
    fs::create_dir(&target).unwrap();
    fs::create_dir(target.join("0-not-ours")).unwrap();
    for _ in 0..4 {
        done(&mut backup);
    }
    let left = sets(&target);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].starts_with("000003-") && left[1].starts_with("000004-"));
    assert_eq!(latest(&target), left[1]);
    let (_other, another, _) = stored();
    run(&mut script("backup", &[text(&another), text(&target)])).failed(7, &["of cluster"]);
    run(&mut script(
        "backup",
        &["--keep", "1", text(&source), text(&target)],
    ))
    .failed(2, &["--keep"]);
    // An older one can be asked for by its name.
    let restored = dir.path().join("restored");
    let asked = [text(&target), text(&restored), left[0].as_str()];
    done(&mut script("restore", &asked));
    run(&mut script("restore", &asked)).failed(4, &["is not empty"]);
    let nowhere = dir.path().join("nowhere");
    run(&mut script("restore", &[text(&nowhere), text(dir.path())])).failed(4, &["is not empty"]);
    let new = dir.path().join("new");
    run(&mut script("restore", &[text(&nowhere), text(&new)])).failed(3, &["no good set"]);
}

#[test]
fn over_a_remote_shell_what_arrived_is_verified_there_or_compared_byte_by_byte() {
    let (dir, source, target) = stored();
    // A remote shell whose every host is this one, with and without a `kfs` there.
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let kfs = bin.join("kfs");
    let shell = dir.path().join("shell");
    let mut lines = "#!/bin/sh\n[ \"$1\" = it-is-me ] || exit 9\nshift\n".to_owned();
    lines += &format!("PATH={}:$PATH exec sh -c \"$*\"\n", text(&bin));
    fs::write(&shell, lines).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    let remote = format!("it-is-me:{}", text(&target));
    let mut backup = script("backup", &[text(&source), &remote]);
    backup.env("RSYNC_RSH", &shell);
    done(&mut backup);
    fs::write(&kfs, "#!/bin/sh\necho asked >&2\nexit 6\n").unwrap();
    fs::set_permissions(&kfs, fs::Permissions::from_mode(0o755)).unwrap();
    run(&mut backup).failed(6, &["asked", "what arrived at it-is-me:"]);
    fs::remove_file(&kfs).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kfs"), &kfs).unwrap();
    done(&mut backup);
    assert_eq!(sets(&target).len(), 2);
    let restored = dir.path().join("it is restored");
    let mut restore = script("restore", &[&remote, text(&restored)]);
    done(restore.env("RSYNC_RSH", &shell));
    assert_eq!(names(&restored), ["a", "b", "c"]);
    let mut elsewhere = script("backup", &[text(&source), "elsewhere:backup"]);
    run(elsewhere.env("RSYNC_RSH", &shell)).failed(1, &["cannot use elsewhere:backup"]);
}

#[test]
fn without_rsync_one_line_says_how_to_install_it() {
    let (dir, source, target) = stored();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["bash", "sh", "env", "realpath", "mkdir", "find"] {
        let paths = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name));
        let found = paths.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, bin.join(name)).unwrap();
    }
    let new = dir.path().join("new");
    for (name, arguments) in [
        ("backup", [text(&source), text(&target)]),
        ("restore", [text(&target), text(&new)]),
    ] {
        let said = run(script(name, &arguments).env("PATH", &bin));
        said.failed(2, &["rsync is not installed", "apt-get install rsync"]);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    }
}

#[test]
fn after_a_restore_from_an_old_backup_nothing_changes_until_an_operator_accepts_it() {
    let mut cluster = Cluster::new();
    let source = cluster.dir.path().join("meta");
    let target = cluster.dir.path().join("backup");
    let (before, after) = (content(100_000), content(70_000));
    cluster.store("/before", &before);
    done(&mut script("backup", &[text(&source), text(&target)]));
    cluster.store("/after", &after);
    cluster
        .kfs(&["admin", "accept-rollback"])
        .failed(1, &["nothing to accept"]);
    cluster
        .kfs(&["admin", "accept-rollback", "--dry-run"])
        .failed(1, &["nothing to accept"]);

    let restored = cluster.dir.path().join("restored");
    done(&mut script("restore", &[text(&target), text(&restored)]));
    cluster.replace_meta(restored);
    let status = || -> serde_json::Value {
        serde_json::from_str(&cluster.ok(&["status", "--json"])).unwrap()
    };
    let all_up = |status: &serde_json::Value| {
        let mut servers = status["servers"].as_array().unwrap().iter();
        servers.all(|server| server["state"] == "up")
    };
    wait("the chunkservers", || all_up(&status()).then_some(()));
    let said = cluster.ok(&["status"]);
    assert!(
        said.contains("HEALTH_ERR") && said.contains("LOG_TAIL_LOST"),
        "{said}"
    );
    cluster
        .kfs(&["mkdir", "/new"])
        .failed(7, &["KFS-E032", "accept-rollback"]);
    cluster
        .kfs(&["rm", "/before"])
        .failed(7, &["KFS-E032", "a part of the log is missing"]);
    assert_eq!(cluster.kfs(&["cat", "/before"]).out, before);

    let would = cluster.ok(&["admin", "accept-rollback", "--dry-run"]);
    let said = "would accept: a part of the log is missing";
    assert!(would.starts_with(said), "{would}");
    cluster.kfs(&["mkdir", "/new"]).failed(7, &["KFS-E032"]);
    let accepted = cluster.ok(&["admin", "accept-rollback", "--json"]);
    assert!(
        accepted.contains("a part of the log is missing"),
        "{accepted}"
    );
    cluster.ok(&["mkdir", "/new"]);
    let found = wait("what was lost", || {
        let names = cluster.names("/lost+found");
        all_up(&status())
            .then_some(names)
            .filter(|names| !names.is_empty())
    });
    assert_eq!(found.len(), 1, "{found:?}");
    let found = format!("/lost+found/{}", found[0]);
    assert_eq!(cluster.kfs(&["cat", &found]).out, after);
    cluster.ok(&["mv", &found, "/after"]);
    assert_eq!(status()["tail_lost"], false);
    assert_eq!(status()["chunks_unknown"], 0);
}
