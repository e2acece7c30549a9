//! `mount` and `umount`: the cluster as a directory of this machine.
use super::failure::{Exit, Failure};
use super::reach::Reach;
use super::screen::Screen;
use super::signals::Signals;
use super::{Common, runtime_of};
use clap::Args;
use kfs_client::mount::{Changes, Ends, Mount, TYPE, unmount};
use kfs_core::wire::Status;
use rustix::io::Errno;
use serde::Serialize;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Programs that have files open in a mount that is asked to end get so long to close them.
const CLOSING_MAX: Duration = Duration::from_secs(10);
/// Set for the process that `--daemon` leaves behind.
const DAEMON: &str = "KFS_MOUNT_IN_BACKGROUND";

#[derive(Args, Debug)]
pub(crate) struct Asked {
    /// A directory of this machine
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
    /// Have the kernel refuse all changes
    #[arg(long)]
    read_only: bool,
    /// Return when it is mounted, and serve it in the background until it is unmounted
    #[arg(long)]
    daemon: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Umount {
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
    /// Also if programs have files open in it: it is gone for all others at once, and ends when they have closed them
    #[arg(long)]
    lazy: bool,
}

/// What was mounted or unmounted, as JSON.
#[derive(Serialize, Debug)]
struct Did<'a> {
    did: &'a str,
    mountpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
}

/// Mounts, and serves until it is unmounted or a signal comes.
pub(crate) fn mount(common: &Common, screen: &Screen, asked: &Asked) -> Result<Exit, Failure> {
    let mountpoint = directory(&asked.mountpoint)?;
    if let Some(found) = mounted(&mountpoint)? {
        let what = format!(
            "{} is already a mount of {} ({})",
            mountpoint.display(),
            found.source,
            found.kind
        );
        let help = "choose another directory, or unmount it first with 'kfs umount'";
        return Err(Failure::new(Status::Exists, what).help(help));
    }
    fuse_is_there()?;
    if asked.daemon && std::env::var_os(DAEMON).is_none() {
        return in_background();
    }
    // One thread is the client's; others answer the kernel meanwhile.
    runtime_of(tokio::runtime::Builder::new_multi_thread)?.block_on(async {
        let mut signals = Signals::new()?;
        let reach = tokio::select! {
            biased;
            () = signals.raised() => return Err(Failure::interrupted()),
            reach = Reach::new(&[], common, screen) => reach?,
        };
        let served = serve(&reach, common, screen, asked, mountpoint, signals).await;
        reach.leave().await;
        served
    })
}

async fn serve(
    reach: &Reach,
    common: &Common,
    screen: &Screen,
    asked: &Asked,
    mountpoint: PathBuf,
    mut signals: Signals,
) -> Result<Exit, Failure> {
    // Nobody wants to find out with the first 'ls' that there is no cluster.
    tokio::select! {
        biased;
        () = signals.raised() => return Err(Failure::interrupted()),
        found = reach.kfs.stat(b"/") => drop(found?),
    }
    let source = format!("kfs://{}", reach.meta);
    let changes = if asked.read_only {
        Changes::Refused
    } else {
        Changes::Allowed
    };
    let mounted = Mount::new(reach.kfs.clone(), &mountpoint, source.clone(), changes);
    let mut mount = mounted.map_err(|error| cannot_mount(&mountpoint, &error))?;
    read_ahead(&mountpoint);
    screen.json(&Did {
        did: "mounted",
        mountpoint: mountpoint.display().to_string(),
        source: Some(&source),
    })?;
    screen.line(format!("mounted {source} on {}", mountpoint.display()))?;
    screen.flush()?;
    if std::env::var_os(DAEMON).is_some() {
        alone()?;
        if common.local.is_none() {
            // What this was started in may be unmounted then.
            std::env::set_current_dir("/")
                .map_err(|error| Failure::local("cannot leave the directory", &error))?;
        }
    }
    let ended = tokio::select! {
        biased;
        () = signals.raised() => None,
        ended = mount.ended() => Some(ended),
    };
    let mut exit = Exit::Done;
    let ended = match ended {
        Some(ended) => ended,
        None => {
            signals.exit_on_the_next();
            match mount.unmount().await {
                Ok(0) => {}
                Ok(failed) => {
                    screen.note(format!(
                        "{failed} files that are open could not be synced: the log says why"
                    ));
                    exit = Exit::Failed;
                }
                Err(error) => return Err(Failure::local("cannot unmount", &error)),
            }
            match tokio::time::timeout(CLOSING_MAX, mount.ended()).await {
                Ok(ended) => ended,
                Err(_) => {
                    screen.note(format!(
                        "programs still have files open in {}: what they have written is synced, and they can \
                         go on with nothing",
                        mountpoint.display()
                    ));
                    Ok(())
                }
            }
        }
    };
    mount.finish().await;
    ended.map_err(|error| Failure::local("the mount has ended", &error))?;
    Ok(exit)
}

/// The directory, without links and dots.
fn directory(path: &Path) -> Result<PathBuf, Failure> {
    let bad = |error: &io::Error| {
        let failure = Failure::local(format!("cannot mount on {}", path.display()), error);
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => failure.help("make the directory first"),
            (_, Some(number)) if number == Errno::NOTCONN.raw_os_error() => {
                failure.help("a mount there has lost its process: 'kfs umount' removes it")
            }
            _ => failure,
        }
    };
    let kind = std::fs::metadata(path).map_err(|error| bad(&error))?;
    if !kind.is_dir() {
        let what = format!("cannot mount on {}: it is not a directory", path.display());
        return Err(Failure::new(Status::NotADirectory, what)
            .help("name a directory, which should be empty"));
    }
    path.canonicalize().map_err(|error| bad(&error))
}

fn fuse_is_there() -> Result<(), Failure> {
    match std::fs::metadata("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) => Err(
            Failure::local("cannot mount: /dev/fuse is not to be had", &error).help(
                "load the kernel's module with 'modprobe fuse'; in a container, give it the device",
            ),
        ),
    }
}

fn cannot_mount(mountpoint: &Path, error: &io::Error) -> Failure {
    let failure = Failure::local(format!("cannot mount on {}", mountpoint.display()), error);
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            failure.help("run it as root; others need the program 'fusermount3', and a /dev/fuse that they may open")
        }
        io::ErrorKind::NotFound => {
            failure.help("run it as root, or install the program 'fusermount3'")
        }
        _ => failure,
    }
}

/// Asks the kernel to read further ahead than its 128 KiB. Only root may say so; without it reads are as right.
fn read_ahead(mountpoint: &Path) {
    if let Ok(Some(mounted)) = mounted(mountpoint) {
        let file = format!("/sys/class/bdi/{}/read_ahead_kb", mounted.device);
        let _ = std::fs::write(file, "1024");
    }
}

/// Starts this command once more, in the background, and waits until it has mounted, or says why it has not.
fn in_background() -> Result<Exit, Failure> {
    let cannot = |error: io::Error| Failure::local("cannot start in the background", &error);
    let program = std::env::current_exe().map_err(cannot)?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(DAEMON, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = Vec::new();
    // It is what this command would print, in the form that was asked for.
    said.read_until(b'\n', &mut line).map_err(cannot)?;
    if !line.is_empty() {
        let printed = io::stdout().write_all(&line);
        printed.map_err(|error| Failure::stdout(&error))?;
        return Ok(Exit::Done);
    }
    let mut why = Vec::new();
    let mut errors = child.stderr.take().expect("it is piped");
    errors.read_to_end(&mut why).map_err(cannot)?;
    let status = child.wait().map_err(cannot)?;
    io::stderr()
        .write_all(&why)
        .map_err(|error| Failure::local("cannot write to standard error", &error))?;
    Ok(match status.code() {
        Some(2) => Exit::Usage,
        Some(3) => Exit::NotFound,
        Some(4) => Exit::Exists,
        Some(5) => Exit::Unreachable,
        Some(6) => Exit::Corrupt,
        Some(7) => Exit::Refused,
        _ => Exit::Failed,
    })
}

/// Lets go of the terminal, and of whoever waited for the mount.
fn alone() -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::local("cannot go to the background", &error);
    // It may lead its session already.
    let _ = rustix::process::setsid();
    let nowhere = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .map_err(cannot)?;
    rustix::stdio::dup2_stdout(&nowhere).map_err(|error| cannot(error.into()))?;
    rustix::stdio::dup2_stderr(&nowhere).map_err(|error| cannot(error.into()))?;
    Ok(())
}

/// Unmounts.
pub(crate) fn umount(screen: &Screen, asked: &Umount) -> Result<Exit, Failure> {
    let named = &asked.mountpoint;
    // One that has lost its process cannot be looked at, so what stands above it is made plain.
    let mountpoint = named
        .canonicalize()
        .or_else(|_| plain(named))
        .map_err(|error| Failure::local(format!("cannot unmount {}", named.display()), &error))?;
    match mounted(&mountpoint)? {
        Some(found) if found.kind == TYPE || found.source.starts_with("kfs://") => {}
        Some(found) => {
            let what = format!(
                "{} is a mount of type {}, not of this program",
                mountpoint.display(),
                found.kind
            );
            return Err(Failure::new(Status::BadRequest, what).help("see umount(8)"));
        }
        None => {
            let what = format!("nothing is mounted on {}", mountpoint.display());
            return Err(Failure::new(Status::NotFound, what)
                .help("'findmnt -t fuse.kfs' lists the mounts of this program"));
        }
    }
    let is_dead = std::fs::metadata(&mountpoint)
        .is_err_and(|error| error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()));
    let ends = if asked.lazy || is_dead {
        Ends::WhenClosed
    } else {
        Ends::Now
    };
    unmount(&mountpoint, ends).map_err(|error| {
        let cannot = format!("cannot unmount {}", mountpoint.display());
        let failure = Failure::local(cannot, &error);
        match error.kind() {
            io::ErrorKind::ResourceBusy => failure.help(
                "programs have files open in it, or work in it: end them, or give --lazy, which lets them finish",
            ),
            io::ErrorKind::NotFound => {
                failure.help("run it as root, or install the program 'fusermount3'")
            }
            _ => failure,
        }
    })?;
    screen.json(&Did {
        did: "unmounted",
        mountpoint: mountpoint.display().to_string(),
        source: None,
    })?;
    Ok(Exit::Done)
}

/// A path without links and dots, whose last name is not looked at.
fn plain(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => path.canonicalize(),
    }
}

/// A mount of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mounted {
    /// `major:minor`.
    device: String,
    kind: String,
    source: String,
}

/// What is mounted on a directory, last if there are several.
fn mounted(mountpoint: &Path) -> Result<Option<Mounted>, Failure> {
    let list = "/proc/self/mountinfo";
    let text = std::fs::read(list)
        .map_err(|error| Failure::local(format!("cannot read {list}"), &error))?;
    Ok(find(&text, mountpoint))
}

/// Lines of `proc(5)`: `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw`.
fn find(mountinfo: &[u8], mountpoint: &Path) -> Option<Mounted> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let mut found = lines.filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let text = |field: &[u8]| String::from_utf8_lossy(&unescaped(field)).into_owned();
        let there = unescaped(fields.get(4)?);
        (there == mountpoint.as_os_str().as_bytes()).then_some(())?;
        Some(Mounted {
            device: text(fields.get(2)?),
            kind: text(fields.get(dash + 1)?),
            source: text(fields.get(dash + 2)?),
        })
    });
    found.next_back()
}

/// Spaces and the like stand as `\040` there.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, after @ ..] = rest {
        let code = after.get(..3).filter(|_| *byte == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                plain.push(code);
                rest = &after[3..];
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain).into_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_found_with_its_type_and_the_last_one_counts() {
        let list = b"36 35 98:0 / /mnt/a rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            37 35 0:50 / /mnt/with\\040space rw shared:2 - fuse.kfs kfs://127.0.0.1:20000 rw\n\
            38 35 0:51 / /mnt/a rw - fuse.kfs kfs://[::1]:1 rw,user_id=0\n";
        let found = |path: &str| find(list, Path::new(path));
        let at = found("/mnt/a").unwrap();
        assert_eq!((at.kind.as_str(), at.device.as_str()), (TYPE, "0:51"));
        let at = found("/mnt/with space").unwrap();
        assert_eq!(at.source, "kfs://127.0.0.1:20000");
        assert_eq!(found("/mnt"), None);
        assert_eq!(find(b"not a line\n\n", Path::new("/mnt")), None);
    }
}
