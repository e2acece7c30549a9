//! `doctor`: what on this machine would keep a server or a client from working, and what to do about it.
//!
//! It changes nothing: what it writes to a data directory's disk has no name and is gone when it ends.
use super::Common;
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use super::units::size;
use clap::Args;
use kfs_core::block;
use kfs_core::health::{Health, reasons};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The ports that servers listen on unless they are told otherwise.
const PORTS: [(u16, &str); 4] = [
    (20_000, "kfs-metaserver --listen"),
    (20_080, "kfs-metaserver --http"),
    (22_000, "kfs-chunkserver --listen"),
    (22_080, "kfs-chunkserver --http"),
];
/// A server keeps up to 256 files open, and has a connection of each client and neighbour.
const FILES_LEAST: u64 = 512;
const FILES_GOOD: u64 = 4_096;
/// Syncs of a disk that are tried, for no longer than this.
const SYNCS: u32 = 20;
const SYNCS_MAX: Duration = Duration::from_secs(3);
/// A change waits for a sync of the log, and a close for one of each replica.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// What is left of a disk that is as good as full.
const FREE_LEAST: u64 = 1 << 30;
/// How long clocks are watched, and how far apart they may go in that time.
const WATCHED: Duration = Duration::from_millis(100);
const APART_MAX: Duration = Duration::from_millis(5);
/// So often before it is said that they do.
const WATCHES: u32 = 3;
/// Nobody waits longer for a meta server that does not answer.
const META_WITHIN: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// A data directory that is, or is to be, a server's: its disk is looked at
    #[arg(long, value_name = "DIR")]
    data: Vec<PathBuf>,
}

/// How something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Debug)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at, as JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
struct Finding {
    check: &'static str,
    state: Verdict,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self {
            check,
            state: Verdict::Ok,
            what: what.into(),
            fix: None,
        }
    }

    fn warn(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            state: Verdict::Warn,
            fix: Some(fix.into()),
            ..Self::ok(check, what)
        }
    }

    fn fail(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            state: Verdict::Fail,
            ..Self::warn(check, what, fix)
        }
    }
}

/// Looks at everything, and says each finding as it comes.
pub(crate) async fn doctor(
    common: &Common,
    screen: &Screen,
    asked: &Doctor,
) -> Result<Exit, Failure> {
    let mut worst = Verdict::Ok;
    let mut say = |finding: Finding| {
        worst = worst.max(finding.state);
        tell(screen, &finding)
    };
    say(checksums())?;
    say(clock())?;
    say(clock_source())?;
    say(descriptors())?;
    for dir in &asked.data {
        for finding in disk(dir) {
            say(finding)?;
        }
    }
    let (meta, finding) = meta(common, screen).await;
    say(finding)?;
    for (port, whose) in PORTS {
        say(listening(port, whose, meta))?;
    }
    say(fuse())?;
    if asked.data.is_empty() {
        screen.flush()?;
        screen.note("no disk was looked at: name data directories with --data DIR");
    }
    Ok(if worst == Verdict::Fail {
        Exit::Failed
    } else {
        Exit::Done
    })
}

fn tell(screen: &Screen, finding: &Finding) -> Result<(), Failure> {
    screen.json(finding)?;
    let state = match finding.state {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    screen.line(format!("{state}  {}: {}", finding.check, finding.what))?;
    if let Some(fix) = &finding.fix {
        screen.line(format!("      -> {fix}"))?;
    }
    screen.flush()
}

/// The sums that everything rests on, of bytes whose sums are known from elsewhere.
fn checksums() -> Finding {
    let text = b"123456789";
    let sha256 = super::checksum::hex(&Sha256::digest(text));
    // RFC 1950, the check value of CRC-32 (ISO-HDLC), FIPS 180-2; the long one takes the ways of wide registers.
    let zeros = vec![0_u8; 1 << 16];
    let right = block::sum(text) == 0x091e_01de
        && block::sum(&zeros) == 0x000f_0001
        && block::crc(text) == 0xcbf4_3926
        && sha256 == "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
    if right {
        return Finding::ok("checksums", "Adler-32, CRC-32 and SHA-256 are right");
    }
    Finding::fail(
        "checksums",
        "this processor makes a wrong Adler-32, CRC-32 or SHA-256",
        "do not store anything with this machine: test its memory and processor",
    )
}

/// The wall clock, for times that people read; and whether all clocks go at one speed, on which leases rest.
fn clock() -> Finding {
    let built = fs::metadata("/proc/self/exe").and_then(|exe| exe.modified());
    let now = SystemTime::now();
    if built.is_ok_and(|built| now < built) {
        return Finding::fail(
            "clock",
            "it shows a time before this program was made",
            "set it, and have it kept by chrony or systemd-timesyncd",
        );
    }
    // Between two readings this process may have to wait for the processor: that is no fault of a clock.
    let mut watched = watch_clocks();
    for _ in 1..WATCHES {
        if watched.apart() > APART_MAX {
            watched = watch_clocks();
        }
    }
    if watched.apart() > APART_MAX {
        let Watched { boot, mono, wall } = watched;
        return Finding::warn(
            "clock",
            format!("in {boot:.1?} of CLOCK_BOOTTIME the others went {mono:.1?} and {wall:.1?}"),
            "it was set just now, or goes wrong: servers are cut off when their clocks do not go at one speed",
        );
    }
    Finding::ok("clock", "it goes, and all of its kinds at one speed")
}

/// How far each clock went in the same time.
#[derive(Clone, Copy, Debug)]
struct Watched {
    boot: Duration,
    mono: Duration,
    wall: Duration,
}

impl Watched {
    fn apart(self) -> Duration {
        let Self { boot, mono, wall } = self;
        boot.max(mono).max(wall) - boot.min(mono).min(wall)
    }
}

fn watch_clocks() -> Watched {
    use rustix::time::{ClockId, clock_gettime};
    let read = || {
        [ClockId::Boottime, ClockId::Monotonic, ClockId::Realtime].map(|id| {
            let time = clock_gettime(id);
            let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
            Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
        })
    };
    let before = read();
    std::thread::sleep(WATCHED);
    let after = read();
    let [boot, mono, wall] = [0, 1, 2].map(|nth: usize| after[nth].saturating_sub(before[nth]));
    Watched { boot, mono, wall }
}

fn clock_source() -> Finding {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let Ok(source) = fs::read_to_string(path) else {
        return Finding::ok("clock source", "not told by this kernel");
    };
    let source = source.trim();
    if matches!(source, "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies") {
        return Finding::warn(
            "clock source",
            format!("{source}, which takes microseconds to read"),
            "see in 'dmesg' why the kernel does not trust the processor's own (tsc)",
        );
    }
    Finding::ok("clock source", source)
}

fn descriptors() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let what = format!("{current} may be open in one process");
    let fix = "raise it: 'ulimit -n 65536' in the shell that starts the server, or LimitNOFILE=65536 in its unit";
    match current {
        0..FILES_LEAST => Finding::fail("file descriptors", what, fix),
        FILES_LEAST..FILES_GOOD => Finding::warn("file descriptors", what, fix),
        _ => Finding::ok("file descriptors", what),
    }
}

/// The disk of a data directory.
fn disk(dir: &Path) -> Vec<Finding> {
    let name = dir.display();
    let file = match tempfile::tempfile_in(dir) {
        Ok(file) => file,
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::NotFound => {
                    "a server would make it: make it to have its disk looked at, and see that the disk is mounted"
                }
                _ => "give a directory that this user may write",
            };
            return vec![Finding::fail("disk", format!("{name}: {error}"), fix)];
        }
    };
    vec![room(dir, &file), syncs(dir, file)]
}

fn room(dir: &Path, file: &File) -> Finding {
    let name = dir.display();
    let stat = match rustix::fs::fstatfs(file) {
        Ok(stat) => stat,
        Err(error) => {
            let fix = "see what is mounted there";
            return Finding::fail("disk room", format!("{name}: {error}"), fix);
        }
    };
    let unit = u64::try_from(stat.f_bsize).unwrap_or(0);
    let (free, total) = (
        stat.f_bavail.saturating_mul(unit),
        stat.f_blocks.saturating_mul(unit),
    );
    let what = format!("{name}: {} of {} free", size(free), size(total));
    // From linux/magic.h: tmpfs and ramfs.
    if matches!(stat.f_type, 0x0102_1994 | 0x8584_58f6) {
        return Finding::warn(
            "disk room",
            format!("{what}, in memory"),
            "what is acknowledged there is gone when the machine loses power: use a disk",
        );
    }
    if free < FREE_LEAST {
        let fix = "make room, or use another disk: a server that is full refuses what is new";
        return Finding::warn("disk room", what, fix);
    }
    Finding::ok("disk room", what)
}

/// How long a sync of a few bytes takes that are written at the end of a file, as those of a log are.
fn syncs(dir: &Path, mut file: File) -> Finding {
    let name = dir.display();
    let began = Instant::now();
    let mut took = Vec::new();
    for _ in 0..SYNCS {
        let before = Instant::now();
        if let Err(error) = file
            .write_all(&[0x5a; 4_096])
            .and_then(|()| file.sync_data())
        {
            let fix = "look at the disk ('dmesg'): a server stops when it cannot sync";
            return Finding::fail("disk sync", format!("{name}: {error}"), fix);
        }
        took.push(before.elapsed());
        if began.elapsed() > SYNCS_MAX {
            break;
        }
    }
    took.sort_unstable();
    let median = took[took.len() / 2];
    let what = format!(
        "{name}: a sync takes {median:.1?} (half of them), {:.1?} at most of {}",
        took[took.len() - 1],
        took.len()
    );
    if median > SYNC_SLOW {
        let fix =
            "every change waits for one: use a faster disk, or one that nothing else syncs to";
        return Finding::warn("disk sync", what, fix);
    }
    Finding::ok("disk sync", what)
}

/// Whether the meta server answers, and where it listens if it does.
async fn meta(common: &Common, screen: &Screen) -> (Option<SocketAddr>, Finding) {
    let common = Common {
        timeout: common.timeout.min(META_WITHIN),
        ..common.clone()
    };
    let reach = match Reach::new(&[], &common, screen).await {
        Ok(reach) => reach,
        Err(failure) => return (None, unreachable(&failure)),
    };
    let asked = Instant::now();
    let answer = reach.kfs.status().await;
    let took = asked.elapsed();
    let address = reach.meta;
    reach.leave().await;
    let status = match answer {
        Ok(status) => status,
        Err(error) => return (None, unreachable(&error.into())),
    };
    let health = Health::of(&reasons(&status));
    let what = format!(
        "{address} answers in {took:.1?}: {}, {}",
        status.build,
        health.word()
    );
    let own = env!("CARGO_PKG_VERSION");
    let finding = if !status.build.split_whitespace().any(|word| word == own) {
        let fix = format!("this kfs is {own}: use the version of the servers");
        Finding::warn("meta server", what, fix)
    } else if health != Health::Ok {
        Finding::warn("meta server", what, "'kfs status' says what is wrong")
    } else {
        Finding::ok("meta server", what)
    };
    (Some(address), finding)
}

fn unreachable(failure: &Failure) -> Finding {
    let fix = "start it, or name it with --meta HOST:PORT; on a machine that has no server yet this is as it should be";
    Finding::fail("meta server", failure.what.clone(), fix)
}

/// Whether a server could listen on a port.
fn listening(port: u16, whose: &str, meta: Option<SocketAddr>) -> Finding {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let what = |how: &str| format!("{port} ({whose}) {how}");
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", what("is free")),
        Err(_) if meta == Some(address) => {
            Finding::ok("port", what("is that of the meta server that answers"))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::warn(
            "port",
            what("is taken"),
            "fine if that is the server; else 'ss -ltnp' names the process, and port 0 takes any that is free",
        ),
        Err(error) => Finding::warn(
            "port",
            what(&format!("cannot be listened on: {error}")),
            "choose another one",
        ),
    }
}

fn fuse() -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Finding::ok("fuse", "/dev/fuse can be opened"),
        Err(error) => Finding::warn(
            "fuse",
            format!("/dev/fuse: {error}"),
            "only 'kfs mount' needs it: 'modprobe fuse', and in a container --device /dev/fuse",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_sums_right_and_its_clock_goes() {
        assert_eq!(checksums().state, Verdict::Ok);
        assert_ne!(clock().state, Verdict::Fail);
    }

    #[test]
    fn a_port_that_is_taken_is_told_from_one_that_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let finding = |meta| listening(address.port(), "x", meta);
        assert_eq!(finding(None).state, Verdict::Warn);
        assert_eq!(finding(Some(address)).state, Verdict::Ok);
        drop(taken);
        assert!(finding(None).what.contains("is free"));
    }

    #[test]
    fn a_disk_is_synced_to_and_nothing_is_left_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let findings = disk(dir.path());
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(
            findings.iter().all(|found| found.state != Verdict::Fail),
            "{findings:?}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let missing = disk(&dir.path().join("missing"));
        assert_eq!(missing[0].state, Verdict::Fail);
        assert!(missing[0].fix.is_some());
    }
}
