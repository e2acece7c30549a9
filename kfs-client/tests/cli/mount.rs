//! `kfs mount`: the kernel and ordinary programs on one side, a cluster on the other.
//!
//! Needs `/dev/fuse` and root; without them each test says that it was left out, and passes.
use crate::cluster::{Cluster, Said, content, ended, run, wait};
use rustix::fs::RenameFlags;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn can_mount() -> bool {
    let can = Path::new("/dev/fuse").exists() && rustix::process::geteuid().is_root();
    if !can {
        // Seen with `--nocapture`, and in the output of a run that fails.
        eprintln!("left out: mounting needs /dev/fuse and root, which this machine does not give");
    }
    can
}

/// A mount that ends with its test.
struct Mounted {
    child: Option<Child>,
    dir: PathBuf,
}

impl Mounted {
    fn new(cluster: &Cluster, name: &str) -> Self {
        Self::with(cluster, name, &[])
    }

    fn with(cluster: &Cluster, name: &str, options: &[&str]) -> Self {
        let dir = cluster.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        let mut command = cluster.command(options);
        command.arg("mount").arg(&dir);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.as_mut().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        if !line.starts_with("mounted ") {
            panic!("not mounted: {line} {:?}", ended(child));
        }
        let child = Some(child);
        Self { child, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().unwrap())
    }

    /// Waits until its process has ended.
    fn ended(mut self) -> Said {
        ended(self.child.take().unwrap())
    }

    /// As an operator ends it.
    fn terminated(self) -> Said {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.ended()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The test has failed, or does not care how it ends.
            let _ = rustix::mount::unmount(&self.dir, rustix::mount::UnmountFlags::DETACH);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[track_caller]
fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    let error = result.expect_err("it is refused");
    error.raw_os_error().expect("the kernel said so")
}
fn raw(errno: rustix::io::Errno) -> i32 {
    errno.raw_os_error()
}
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_copied_in_and_out_is_the_same_for_programs_and_for_the_command() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    fs::create_dir(mount.path("d")).unwrap();
    // Around the edges of what is gathered, of pages and of requests.
    for len in [
        0,
        1,
        4_095,
        4_097,
        (1 << 20) - 1,
        1 << 20,
        (5 << 20) + 12_345,
    ] {
        let bytes = content(len);
        let local = cluster.local("local", &bytes);
        let there = mount.path(&format!("d/{len}"));
        assert_eq!(fs::copy(&local, &there).unwrap(), len as u64);
        assert!(fs::read(&there).unwrap() == bytes, "{len}");
        let said = cluster.kfs(&["cat", &format!("/d/{len}")]);
        assert!(said.out == bytes, "{len}");
        assert_eq!(fs::metadata(&there).unwrap().len(), len as u64);
    }
    // Small writes, one behind the other, with a hole, and read while they are not closed yet.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(mount.path("small"))
        .unwrap();
    let mut due = Vec::new();
    for nth in 0..3_000_u32 {
        let line = format!("record {nth}\n");
        file.write_all(line.as_bytes()).unwrap();
        due.extend_from_slice(line.as_bytes());
        if nth % 1_000 == 0 {
            assert_eq!(file.metadata().unwrap().len(), due.len() as u64);
            let mut seen = vec![0; due.len()];
            file.read_exact_at(&mut seen, 0).unwrap();
            assert!(seen == due, "{nth}");
        }
    }
    file.write_all_at(b"end", 500_000).unwrap();
    due.resize(500_000, 0);
    due.extend_from_slice(b"end");
    drop(file);
    assert!(fs::read(mount.path("small")).unwrap() == due);
    assert!(cluster.kfs(&["cat", "/small"]).out == due);
    // Written by the command, read by a program, and a part of it.
    cluster.store("/stored", &content(300_000));
    let mut file = File::open(mount.path("stored")).unwrap();
    file.seek(SeekFrom::Start(123_456)).unwrap();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).unwrap();
    assert!(rest == content(300_000)[123_456..]);
    assert_eq!(mount.terminated().code, Some(0));
}

#[test]
fn what_was_closed_is_seen_by_the_next_opening_through_another_mount() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let (one, other) = (Mounted::new(&cluster, "a"), Mounted::new(&cluster, "b"));
    fs::write(one.path("log"), b"").unwrap();
    let mut due = Vec::new();
    for nth in 0..20_u32 {
        // In turn; each has what the other wrote in its cache.
        let (writer, reader) = if nth % 2 == 0 {
            (&one, &other)
        } else {
            (&other, &one)
        };
        let line = format!("line {nth}\n");
        let mut file = OpenOptions::new()
            .append(true)
            .open(writer.path("log"))
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
        drop(file);
        due.extend_from_slice(line.as_bytes());
        assert_eq!(fs::read(reader.path("log")).unwrap(), due, "{nth}");
        assert_eq!(fs::read(writer.path("log")).unwrap(), due, "{nth}");
    }
    // The same name, and another file each time, right after a listing that the kernel may keep for a while.
    let replace = |bytes: &str| {
        fs::write(one.path("new"), bytes).unwrap();
        fs::rename(one.path("new"), one.path("name")).unwrap();
    };
    let list = || {
        for entry in fs::read_dir(&other.dir).unwrap() {
            entry.unwrap().metadata().unwrap();
        }
    };
    for nth in 0..10_u32 {
        let bytes = format!("number {nth}").repeat(1_000);
        replace(&bytes);
        list();
        assert_eq!(fs::read_to_string(other.path("name")).unwrap(), bytes);
        // The old one stays for who has it open, and is not what others find.
        let held = File::open(other.path("name")).unwrap();
        list();
        replace("another one");
        let found = fs::read_to_string(other.path("name")).unwrap();
        assert_eq!(found, "another one", "{nth}");
        // And one that nobody has open is gone.
        list();
        replace("the last one");
        let found = fs::read_to_string(other.path("name")).unwrap();
        assert_eq!(found, "the last one", "{nth}");
        assert_eq!(io::read_to_string(held).unwrap(), bytes);
    }
    // Both have the same numbers for the same files.
    let (here, there) = (
        fs::metadata(one.path("log")).unwrap(),
        fs::metadata(other.path("log")).unwrap(),
    );
    assert_eq!(here.ino(), there.ino());
    assert_eq!(fs::metadata(&one.dir).unwrap().ino(), 1);
    // A sync shows what was written so far, though the file stays open.
    let mut file = File::create_new(one.path("open")).unwrap();
    file.write_all(b"synced").unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(other.path("open")).unwrap(), b"synced");
}

#[test]
fn a_file_removed_or_replaced_while_it_is_open_is_read_and_written_on() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(mount.path("f"))
        .unwrap();
    file.write_all(b"before ").unwrap();
    fs::remove_file(mount.path("f")).unwrap();
    assert_eq!(
        errno(File::open(mount.path("f"))),
        raw(rustix::io::Errno::NOENT)
    );
    file.write_all(b"and after").unwrap();
    file.sync_all().unwrap();
    let mut seen = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "before and after");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    drop(file);

    let bytes = content(700_000);
    cluster.store("/g", &bytes);
    let mut old = File::open(mount.path("g")).unwrap();
    let mut first = vec![0; 10_000];
    old.read_exact(&mut first).unwrap();
    // By another client, which knows nothing of this mount.
    let said = cluster.feed(&["put", "--force", "-", "/g"], b"another");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(fs::read(mount.path("g")).unwrap(), b"another");
    let mut rest = Vec::new();
    old.read_to_end(&mut rest).unwrap();
    assert!([first, rest].concat() == bytes);
}

#[test]
fn names_are_moved_replaced_and_refused_as_on_any_file_system() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    let at = |name: &str| mount.path(name);
    fs::create_dir_all(at("d/e")).unwrap();
    fs::write(at("one"), b"one").unwrap();
    fs::write(at("two"), b"two").unwrap();
    fs::rename(at("one"), at("two")).unwrap();
    assert_eq!(fs::read(at("two")).unwrap(), b"one");
    fs::write(at("d/three"), b"three").unwrap();
    let cwd = rustix::fs::CWD;
    let no_replace =
        |from: &str, to: &str, flags| rustix::fs::renameat_with(cwd, at(from), cwd, at(to), flags);
    use rustix::io::Errno;
    assert_eq!(
        no_replace("two", "d/three", RenameFlags::NOREPLACE),
        Err(Errno::EXIST)
    );
    assert_eq!(
        no_replace("two", "d/three", RenameFlags::EXCHANGE),
        Err(Errno::INVAL)
    );
    assert_eq!(no_replace("two", "d/four", RenameFlags::NOREPLACE), Ok(()));
    assert_eq!(names(&at("d")), ["e", "four", "three"]);
    assert_eq!(errno(fs::rename(at("d"), at("d/e/in"))), raw(Errno::INVAL));
    assert_eq!(errno(fs::remove_dir(at("d"))), raw(Errno::NOTEMPTY));
    assert_eq!(errno(fs::remove_file(at("d"))), raw(Errno::ISDIR));
    assert_eq!(errno(fs::remove_dir(at("d/four"))), raw(Errno::NOTDIR));
    assert_eq!(errno(fs::create_dir(at("d"))), raw(Errno::EXIST));
    assert_eq!(errno(File::create_new(at("d/four"))), raw(Errno::EXIST));
    assert_eq!(errno(File::open(at("d/no"))), raw(Errno::NOENT));
    assert_eq!(errno(File::open(at("d/four/no"))), raw(Errno::NOTDIR));
    let long = "x".repeat(256);
    assert_eq!(errno(File::create(at(&long))), raw(Errno::NAMETOOLONG));
    assert_eq!(
        errno(fs::hard_link(at("d/four"), at("l"))),
        raw(Errno::PERM)
    );
    fs::remove_file(at("d/four")).unwrap();
    fs::remove_dir(at("d/e")).unwrap();
    assert_eq!(names(&at("d")), ["three"]);
    // What another client does is seen at once.
    cluster.ok(&["rm", "-r", "/d"]);
    assert_eq!(names(&mount.dir), Vec::<String>::new());
    assert_eq!(errno(fs::metadata(at("d/three"))), raw(Errno::NOENT));
}

#[test]
fn two_thousand_entries_are_listed_each_once_while_others_come_and_go() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    fs::create_dir(mount.path("many")).unwrap();
    for nth in 0..2_000 {
        fs::create_dir(mount.path(&format!("many/{nth:04}"))).unwrap();
    }
    let due: BTreeSet<String> = (0..2_000).map(|nth| format!("{nth:04}")).collect();
    let listed = names(&mount.path("many"));
    assert!(listed.iter().eq(due.iter()), "{} entries", listed.len());
    assert_eq!(cluster.names("/many").len(), 2_000);
    // In the middle of a listing some that were given go, and others come.
    let mut entries = fs::read_dir(mount.path("many")).unwrap();
    let mut seen: Vec<String> = Vec::new();
    for nth in 0..1_200 {
        let name = entries.next().unwrap().unwrap().file_name();
        seen.push(name.into_string().unwrap());
        if nth == 600 {
            for gone in &seen[..300] {
                fs::remove_dir(mount.path(&format!("many/{gone}"))).unwrap();
            }
            fs::create_dir(mount.path("many/0000a")).unwrap();
            fs::create_dir(mount.path("many/zzzz")).unwrap();
        }
    }
    seen.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    let once: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "none is given twice");
    assert!(due.is_subset(&once), "those that stay are all given");
    // `ls -l` with all attributes.
    let said = Command::new("ls")
        .arg("-la")
        .arg(mount.path("many"))
        .output()
        .unwrap();
    let lines = String::from_utf8(said.stdout).unwrap();
    assert_eq!(lines.lines().count(), 1 + 2 + 1_702, "{:?}", said.stderr);
}

#[test]
fn attributes_are_kept_and_permissions_are_the_kernels_to_check() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    // Whoever is not root has to come this far.
    for dir in [cluster.dir.path(), &mount.dir] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(mount.path("f"))
        .unwrap();
    file.write_all_at(b"mine", 0).unwrap();
    // `cp -p`: the times are set before the file is closed, and stay.
    let then = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(then).unwrap();
    drop(file);
    let seen = fs::metadata(mount.path("f")).unwrap();
    assert_eq!(seen.modified().unwrap(), then);
    assert_eq!((seen.mode() & 0o7777, seen.len()), (0o600, 4));
    let nobody = |arguments: &[&str], path: &Path| {
        let mut command = Command::new(arguments[0]);
        command
            .args(&arguments[1..])
            .arg(path)
            .uid(65_534)
            .gid(65_534);
        command.output().unwrap().status.success()
    };
    assert!(!nobody(&["cat"], &mount.path("f")));
    fs::set_permissions(mount.path("f"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(nobody(&["cat"], &mount.path("f")));
    assert!(
        !nobody(&["touch"], &mount.path("new")),
        "the root is not nobody's"
    );
    fs::create_dir(mount.path("open")).unwrap();
    fs::set_permissions(mount.path("open"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(nobody(&["touch"], &mount.path("open/new")));
    let seen = fs::metadata(mount.path("open/new")).unwrap();
    assert_eq!((seen.uid(), seen.gid()), (65_534, 65_534));
    std::os::unix::fs::chown(mount.path("f"), Some(7), Some(8)).unwrap();
    let seen = cluster.ok(&["stat", "/f"]);
    assert!(seen.contains("7:8") && seen.contains("0644"), "{seen}");
    // A time before the first that can be kept is refused, and one that is now is the cluster's.
    let before = UNIX_EPOCH - Duration::from_secs(1);
    let file = File::open(mount.path("f")).unwrap();
    assert_eq!(
        errno(file.set_modified(before)),
        raw(rustix::io::Errno::INVAL)
    );
    let status = Command::new("touch").arg(mount.path("f")).status().unwrap();
    assert!(status.success());
    let seen = fs::metadata(mount.path("f")).unwrap().modified().unwrap();
    let age = SystemTime::now().duration_since(seen).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
    let room = rustix::fs::statvfs(&mount.dir).unwrap();
    assert!(room.f_blocks > 0 && room.f_bavail <= room.f_blocks);
    assert_eq!(room.f_namemax, 255);
}

#[test]
fn two_programs_append_to_one_file_and_no_record_is_torn_or_lost() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    fs::write(mount.path("log"), b"").unwrap();
    let appends = |who: char| {
        let path = mount.path("log");
        std::thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            for nth in 0..200 {
                file.write_all(format!("{who} {nth:03} {}\n", "x".repeat(nth)).as_bytes())
                    .unwrap();
                if nth % 40 == 0 {
                    file.sync_data().unwrap();
                }
            }
        })
    };
    let writers = [appends('a'), appends('b'), appends('c')];
    for writer in writers {
        writer.join().unwrap();
    }
    let log = String::from_utf8(cluster.kfs(&["cat", "/log"]).out).unwrap();
    assert_eq!(log, fs::read_to_string(mount.path("log")).unwrap());
    for who in ['a', 'b', 'c'] {
        let mine: Vec<&str> = log.lines().filter(|line| line.starts_with(who)).collect();
        let due: Vec<String> = (0..200)
            .map(|nth| format!("{who} {nth:03} {}", "x".repeat(nth)))
            .collect();
        assert!(mine.iter().eq(due.iter()), "{who}: {} lines", mine.len());
    }
}

/// Its size stays, so that nothing but the times tells the kernel that what it has cached is no more.
#[test]
fn a_hole_that_is_filled_elsewhere_is_seen_by_the_next_opening() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let (one, other) = (Mounted::new(&cluster, "a"), Mounted::new(&cluster, "b"));
    let file = File::create_new(one.path("f")).unwrap();
    file.write_all_at(b"end", 300_000).unwrap();
    file.sync_all().unwrap();
    let mut due = vec![0; 300_003];
    due[300_000..].copy_from_slice(b"end");
    for _ in 0..3 {
        assert!(fs::read(other.path("f")).unwrap() == due);
    }
    file.write_all_at(b"begin", 0).unwrap();
    file.sync_all().unwrap();
    due[..5].copy_from_slice(b"begin");
    assert!(fs::read(other.path("f")).unwrap() == due);
    drop(file);
    for mount in [&one, &other] {
        assert!(fs::read(mount.path("f")).unwrap() == due);
    }
}

/// The kernel of the second has looked up how long the file is before it waited.
#[test]
fn who_waited_for_another_writer_appends_behind_what_that_one_wrote() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let (one, other) = (Mounted::new(&cluster, "a"), Mounted::new(&cluster, "b"));
    fs::write(one.path("log"), b"first ").unwrap();
    let mut file = OpenOptions::new()
        .append(true)
        .open(one.path("log"))
        .unwrap();
    let path = other.path("log");
    let waiting = std::thread::Builder::new().name("waits".into());
    let waiting = waiting
        .spawn(move || {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(b"third").unwrap();
            file.sync_all().unwrap();
        })
        .unwrap();
    // For the kernel to look it up, or to open it: which of the two cannot be seen from here.
    wait("it waits", || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let mut stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")));
        stats
            .any(|stat| {
                let stat = stat.unwrap_or_default();
                stat.contains("(waits) S") || stat.contains("(waits) D")
            })
            .then_some(())
    });
    file.write_all(b"second ").unwrap();
    file.sync_all().unwrap();
    assert!(!waiting.is_finished());
    drop(file);
    waiting.join().unwrap();
    assert_eq!(fs::read(one.path("log")).unwrap(), b"first second third");
    assert_eq!(fs::read(other.path("log")).unwrap(), b"first second third");
}

/// Bytes that are others for each number.
fn other_content(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(next).collect()
}

/// The same is done to a file of the cluster and to one of this machine.
struct Both {
    files: [File; 2],
    paths: [PathBuf; 2],
}

impl Both {
    fn new(mount: &Mounted, cluster: &Cluster, name: &str) -> Self {
        let paths = [mount.path(name), cluster.dir.path().join(name)];
        let open = |path: &PathBuf| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).open(path)
        };
        let files = paths.each_ref().map(|path| open(path).unwrap());
        Self { files, paths }
    }
    fn write(&self, at: u64, data: &[u8]) {
        for file in &self.files {
            file.write_all_at(data, at).unwrap();
        }
    }
    fn set_len(&self, len: u64) {
        for file in &self.files {
            file.set_len(len).unwrap();
        }
    }
    /// Behind whatever is there, by a descriptor of its own.
    fn append(&self, data: &[u8]) {
        for path in &self.paths {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(data).unwrap();
        }
    }
    #[track_caller]
    fn same(&self, when: &str) {
        // Who writes it sees what it wrote, before anybody opens it anew.
        let lens = self
            .files
            .each_ref()
            .map(|file| file.metadata().unwrap().len());
        assert_eq!(lens[0], lens[1], "{when}");
        let [ours, theirs] = self.files.each_ref().map(|file| {
            let mut found = vec![0; usize::try_from(lens[1]).unwrap() + 10];
            let len = file.read_at(&mut found, 0).unwrap();
            found.truncate(len);
            found
        });
        assert!(ours == theirs, "{when}, by who writes it");
        let [ours, theirs] = self.paths.each_ref().map(|path| fs::read(path).unwrap());
        assert!(ours == theirs, "{when}");
    }
}

#[test]
fn a_file_is_written_over_cut_and_made_longer_as_on_this_machine() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    let both = Both::new(&mount, &cluster, "f");
    both.write(0, b"hello");
    both.write(0, b"J");
    both.same("before it was synced");
    both.write(5, b" world");
    both.set_len(3);
    both.write(7, b"!");
    both.same("cut");
    both.write(0, b"Y");
    both.append(b" and more");
    both.same("written over and appended to");
    both.set_len(4);
    both.append(b"?");
    both.same("cut and appended to");
    both.set_len(2);
    both.set_len(9);
    both.same("cut and made longer");
    let numbers = other_content(1, 4_000);
    for (nth, drawn) in numbers.chunks_exact(8).take(120).enumerate() {
        let number = u64::from_le_bytes(drawn.try_into().unwrap());
        let (at, len) = (number % 300_000, 1 + number / 300_000 % 40_000);
        match number % 17 {
            0 => both.set_len(at),
            1 => both.files[0].sync_all().unwrap(),
            _ => both.write(
                at,
                &other_content(nth as u64, usize::try_from(len).unwrap()),
            ),
        }
        if nth % 20 == 19 {
            both.same(&format!("step {nth}"));
        }
    }
    let theirs = fs::read(&both.paths[1]).unwrap();
    drop(both);
    assert_eq!(cluster.kfs(&["cat", "/f"]).out, theirs);
    // Anew, in its place.
    fs::write(mount.path("f"), b"anew").unwrap();
    assert_eq!(cluster.kfs(&["cat", "/f"]).out, b"anew");
    let other = Mounted::new(&cluster, "other");
    assert_eq!(fs::read(other.path("f")).unwrap(), b"anew");
}

#[test]
fn a_database_is_kept_in_a_mount_though_a_chunkserver_is_killed() {
    let sqlite = |dir: &Path, sql: &str| {
        Command::new("sqlite3")
            .arg(dir.join("db"))
            .arg(sql)
            .output()
    };
    if !can_mount() || sqlite(Path::new("/"), ".version").is_err() {
        eprintln!("left out: there is no sqlite3 here");
        return;
    }
    let cluster = Cluster::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mount = Mounted::new(&cluster, "m");
    let run = |sql: &str| {
        let said = sqlite(&mount.dir, sql).unwrap();
        assert!(said.status.success(), "{sql}: {said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    run("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT); CREATE INDEX i ON t (s);");
    for round in 0..6 {
        if round == 3 {
            runtime.block_on(cluster.chunkservers[0].kill());
        }
        let rows = (0..50).map(|row| format!("INSERT INTO t (s) VALUES ('{round} {row}');"));
        let rows: String = rows.collect();
        run(&format!(
            "BEGIN; {rows} UPDATE t SET s = s || 'x' WHERE n % 7 = {round}; COMMIT;"
        ));
        run("BEGIN; DELETE FROM t; ROLLBACK;");
    }
    assert_eq!(run("SELECT count(*) FROM t;").trim(), "300");
    assert_eq!(run("PRAGMA integrity_check;").trim(), "ok");
    drop(mount);
    let again = Mounted::new(&cluster, "again");
    let said = sqlite(
        &again.dir,
        "PRAGMA integrity_check; SELECT count(*) FROM t;",
    )
    .unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), "ok\n300\n");
}

#[test]
fn a_mount_to_read_only_changes_nothing() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    fs::write(mount.path("f"), b"hello world").unwrap();
    let read_only = Mounted::with(&cluster, "ro", &[]);
    drop(read_only);
    let dir = cluster.dir.path().join("ro");
    let mut command = cluster.command(&["mount", "--read-only"]);
    let mut child = command.arg(&dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let read_only = Mounted {
        child: Some(child),
        dir,
    };
    assert_eq!(fs::read(read_only.path("f")).unwrap(), b"hello world");
    let refused = raw(rustix::io::Errno::ROFS);
    assert_eq!(errno(File::create(read_only.path("g"))), refused);
    assert_eq!(errno(fs::remove_file(read_only.path("f"))), refused);
}

#[test]
fn an_unmount_syncs_what_is_open_and_a_signal_ends_the_mount() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    // A process that is started, by other tests too, closes what it has got of this one, which syncs it. So nothing is
    // started here from the writes on: what is there is seen through another mount.
    let (mount, other) = (Mounted::new(&cluster, "m"), Mounted::new(&cluster, "b"));
    let (dir, path) = (mount.dir.clone(), mount.path("f"));
    let mut file = File::create_new(&path).unwrap();
    let mut left = File::create_new(mount.path("left")).unwrap();
    let busy = run(cluster
        .command(&["umount"])
        .env_remove("KFS_META")
        .arg(&dir));
    busy.failed(1, &["busy", "--lazy"]);
    let bytes = b"written, and neither synced nor closed";
    file.write_all(bytes).unwrap();
    kill_process(mount.pid(), Signal::TERM).unwrap();
    // It is gone at once for all who have nothing open in it; and synced before that.
    wait("the mount is gone", || names(&dir).is_empty().then_some(()));
    assert_eq!(fs::read(other.path("f")).unwrap(), bytes);
    // Who has something open goes on, for a while. What is left open after that is synced, too.
    file.write_all(b", and more").unwrap();
    drop(file);
    left.write_all(b"left open").unwrap();
    let said = mount.ended();
    assert_eq!(fs::read(other.path("left")).unwrap(), b"left open");
    assert!(left.write_all(b"in vain").is_err());
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(
        fs::read(other.path("f")).unwrap(),
        b"written, and neither synced nor closed, and more"
    );
    assert_eq!(other.terminated().code, Some(0));

    // By the command, with nothing open.
    let mount = Mounted::new(&cluster, "m");
    fs::write(mount.path("g"), content(3 << 20)).unwrap();
    let done = run(cluster
        .command(&["umount"])
        .env_remove("KFS_META")
        .arg(&dir));
    assert_eq!(done.code, Some(0), "{done:?}");
    let said = mount.ended();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(cluster.kfs(&["cat", "/g"]).out == content(3 << 20));
    // And nobody is kept from writing the files.
    assert_eq!(cluster.feed(&["append", "-", "/f"], b"!").code, Some(0));
}

#[test]
fn a_killed_mount_damages_nothing_and_can_be_unmounted_and_mounted_again() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let mount = Mounted::new(&cluster, "m");
    let dir = mount.dir.clone();
    let mut file = File::create_new(mount.path("f")).unwrap();
    file.write_all(&content(2 << 20)).unwrap();
    file.sync_all().unwrap();
    file.write_all(b"in vain").unwrap();
    fs::write(mount.path("closed"), b"closed").unwrap();
    kill_process(mount.pid(), Signal::KILL).unwrap();
    mount.ended();
    assert!(file.write_all(b"x").is_err());
    assert_eq!(errno(fs::metadata(&dir)), raw(rustix::io::Errno::NOTCONN));
    let again = run(cluster.command(&["mount"]).arg(&dir));
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.err.contains("kfs umount"), "{again:?}");
    let done = run(cluster
        .command(&["umount"])
        .env_remove("KFS_META")
        .arg(&dir));
    assert_eq!(done.code, Some(0), "{done:?}");
    drop(file);
    let mount = Mounted::new(&cluster, "m");
    assert!(
        fs::read(mount.path("f"))
            .unwrap()
            .starts_with(&content(2 << 20))
    );
    assert_eq!(fs::read(mount.path("closed")).unwrap(), b"closed");
    assert_eq!(cluster.kfs(&["fsck"]).code, Some(0));
}

#[test]
fn a_chunkserver_is_killed_while_a_file_is_copied_and_the_copy_is_whole() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::with(4);
    let mount = Mounted::new(&cluster, "m");
    let bytes = content(48 << 20);
    let local = cluster.local("local", &bytes);
    let (from, to) = (local.clone(), mount.path("copy"));
    let copy = std::thread::spawn(move || {
        let status = Command::new("cp").arg(from).arg(to).status();
        status.unwrap().success()
    });
    wait("a part of it is there", || {
        let size = fs::metadata(mount.path("copy")).map_or(0, |seen| seen.len());
        (size > 4 << 20).then_some(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Whoever of them writes it: of four at least two of each three do.
    for server in &cluster.chunkservers[..1] {
        runtime.block_on(server.kill());
    }
    assert!(copy.join().unwrap(), "cp has noticed nothing but a pause");
    let status = Command::new("cmp")
        .arg(&local)
        .arg(mount.path("copy"))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn an_error_of_the_cluster_comes_out_at_the_close_and_the_file_can_be_opened_anew() {
    if !can_mount() {
        return;
    }
    let mut cluster = Cluster::new();
    let mount = Mounted::with(&cluster, "m", &["--timeout", "3s"]);
    let path = mount.path("f");
    fs::write(&path, b"before. ").unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"kept. ").unwrap();
    file.sync_all().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for server in &cluster.chunkservers {
        runtime.block_on(server.kill());
    }
    // `cat` looks at what its close says.
    let local = cluster.local("local", b"lost. ");
    let cat = Command::new("cat")
        .arg(local)
        .stdout(Stdio::from(file.try_clone().unwrap()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&cat.stderr);
    assert!(
        !cat.status.success() && said.contains("Input/output error"),
        "{said}"
    );
    let io = raw(rustix::io::Errno::IO);
    assert_eq!(errno(file.sync_all()), io);
    // It is not forgotten: nothing behind it may seem to be there.
    assert_eq!(errno(file.write_all(b"nor this. ")), io);
    assert_eq!(errno(file.sync_all()), io);
    drop(file);
    cluster.restart_all();
    let seen = wait("the servers are back", || fs::read(&path).ok());
    assert!(seen.starts_with(b"before. kept. "), "{seen:?}");
    let mut file = wait("it can be written", || {
        OpenOptions::new().append(true).open(&path).ok()
    });
    file.write_all(b"after.").unwrap();
    file.sync_all().unwrap();
    drop(file);
    let seen = fs::read(&path).unwrap();
    assert!(seen.ends_with(b"after."), "{seen:?}");
}

#[test]
fn a_mountpoint_that_is_none_and_a_cluster_that_is_not_there_are_said_before_anything_is_mounted() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let dir = |name: &str| cluster.dir.path().join(name);
    let mount = |options: &[&str], at: &Path| {
        let mut command = cluster.command(options);
        run(command.arg("mount").arg(at))
    };
    mount(&[], &dir("no")).failed(3, &["No such file", "make the directory first"]);
    fs::write(dir("file"), b"").unwrap();
    mount(&[], &dir("file")).failed(1, &["not a directory"]);
    let mounted = Mounted::new(&cluster, "m");
    mount(&[], &mounted.dir).failed(4, &["already a mount", "kfs umount"]);
    fs::create_dir(dir("empty")).unwrap();
    let nobody = ["--meta", "127.0.0.1:1", "--timeout", "1s"];
    mount(&nobody, &dir("empty")).failed(5, &["KFS-E0"]);
    let background = run(cluster
        .command(&nobody)
        .args(["mount", "--daemon"])
        .arg(dir("empty")));
    background.failed(5, &["KFS-E0"]);
    assert_eq!(names(&dir("empty")), Vec::<String>::new());
    let umount = |at: &Path| run(cluster.command(&["umount"]).env_remove("KFS_META").arg(at));
    umount(&dir("empty")).failed(3, &["nothing is mounted"]);
    umount(Path::new("/proc")).failed(1, &["not of this program"]);
    umount(&dir("no/where")).failed(3, &["cannot unmount"]);
}

#[test]
fn a_mount_in_the_background_is_there_when_the_command_returns_and_ends_with_an_unmount() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::new();
    let dir = cluster.dir.path().join("m m");
    fs::create_dir(&dir).unwrap();
    // It has no parent that would end it with a test that fails.
    let _detached = Detached(&dir);
    let said = run(cluster.command(&["mount", "--daemon"]).arg(&dir));
    assert_eq!(said.code, Some(0), "{said:?}");
    let out = String::from_utf8(said.out).unwrap();
    assert!(out.starts_with("mounted kfs://127.0.0.1:"), "{out}");
    fs::write(dir.join("f"), b"in the background").unwrap();
    assert_eq!(cluster.kfs(&["cat", "/f"]).out, b"in the background");
    let done = run(cluster
        .command(&["--json", "umount"])
        .env_remove("KFS_META")
        .arg(&dir));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        String::from_utf8(done.out)
            .unwrap()
            .contains("\"did\":\"unmounted\"")
    );
    assert_eq!(names(&dir), Vec::<String>::new());
    assert_eq!(cluster.feed(&["append", "-", "/f"], b"!").code, Some(0));
}

/// Nothing is left mounted there in the end.
struct Detached<'a>(&'a Path);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
