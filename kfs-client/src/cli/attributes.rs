//! `chmod`, `chown` and `touch`: attributes of what is there.
use super::failure::{Exit, Failure};
use super::list::note_failure;
use super::path::RemotePath;
use super::reach::Reach;
use super::screen::Screen;
use super::transfer::{ownership, umask};
use super::tree::{Depth, Did};
use super::units::parse_date;
use super::walk::Walk;
use kfs_client::{Attributes, CreateOptions, Kfs, TimeOf};
use kfs_core::time::UnixNanos;
use kfs_core::wire::Status;
use kfs_core::wire::client_meta::{Attrs, Keep, Kind};
use std::path::Path;

/// `kfs chmod`.
#[derive(clap::Args, Debug)]
pub(crate) struct Chmod {
    /// All that is below directories as well
    #[arg(short = 'R')]
    recursive: bool,
    /// As 644, or u+x, g-w, a=rX, with commas between several
    #[arg(value_name = "MODE", value_parser = Mode::parse, allow_hyphen_values = true)]
    mode: Mode,
    #[arg(value_name = "PATH", value_parser = super::remote(), required = true)]
    pub(crate) paths: Vec<RemotePath>,
}

/// `kfs chown`.
#[derive(clap::Args, Debug)]
pub(crate) struct Chown {
    /// All that is below directories as well
    #[arg(short = 'R')]
    recursive: bool,
    /// As USER, USER:GROUP or :GROUP, each a number, or a name of this machine
    #[arg(value_name = "OWNER", value_parser = Owner::parse)]
    owner: Owner,
    #[arg(value_name = "PATH", value_parser = super::remote(), required = true)]
    pub(crate) paths: Vec<RemotePath>,
}

/// `kfs touch`.
#[derive(clap::Args, Debug)]
pub(crate) struct Touch {
    /// This time instead of now: 2026-01-31, '2026-01-31 23:59:59' (UTC), or @SECONDS since 1970
    #[arg(short, long, value_name = "DATE", value_parser = parse_date)]
    date: Option<UnixNanos>,
    /// Make nothing that is not there
    #[arg(short = 'c', long)]
    no_create: bool,
    #[arg(value_name = "PATH", value_parser = super::remote(), required = true)]
    pub(crate) paths: Vec<RemotePath>,
}

pub(crate) async fn chmod(reach: &Reach, screen: &Screen, asked: &Chmod) -> Result<Exit, Failure> {
    let mask = umask();
    let to = |attrs: &Attrs| Attributes {
        mode: Some(asked.mode.of(attrs, mask)),
        ..Attributes::default()
    };
    each(reach, screen, &asked.paths, depth(asked.recursive), to).await
}

pub(crate) async fn chown(reach: &Reach, screen: &Screen, asked: &Chown) -> Result<Exit, Failure> {
    let Owner { uid, gid } = asked.owner;
    let to = |_: &Attrs| Attributes {
        uid,
        gid,
        ..Attributes::default()
    };
    each(reach, screen, &asked.paths, depth(asked.recursive), to).await
}

const fn depth(recursive: bool) -> Depth {
    if recursive { Depth::Tree } else { Depth::File }
}

/// Sets attributes of each path, and of what is below it.
async fn each(
    reach: &Reach,
    screen: &Screen,
    paths: &[RemotePath],
    depth: Depth,
    to: impl Fn(&Attrs) -> Attributes,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in paths {
        let set = one(&reach.kfs, screen, path, depth, &to).await;
        exit = note_failure(screen, set, exit)?;
    }
    Ok(exit)
}

async fn one(
    kfs: &Kfs,
    screen: &Screen,
    path: &RemotePath,
    depth: Depth,
    to: &impl Fn(&Attrs) -> Attributes,
) -> Result<(), Failure> {
    let below = match depth {
        Depth::File => 0,
        Depth::Tree => u32::MAX,
    };
    let mut walk = Walk::new(kfs, path, below);
    while let Some(step) = walk.next().await {
        let step = step?;
        match kfs.set_attributes(step.path.bytes(), to(&step.attrs)).await {
            // What somebody else removes meanwhile is not missed.
            Err(error) if error.status == Status::NotFound && step.depth > 0 => {}
            set => {
                set?;
                screen.json(&Did::new("set", &step.path))?;
            }
        }
    }
    Ok(())
}

/// Makes an empty file of each path that is not there, and sets the time of what is.
pub(crate) async fn touch(reach: &Reach, screen: &Screen, asked: &Touch) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in &asked.paths {
        let touched = touch_one(&reach.kfs, screen, path, asked).await;
        exit = note_failure(screen, touched, exit)?;
    }
    Ok(exit)
}

async fn touch_one(
    kfs: &Kfs,
    screen: &Screen,
    path: &RemotePath,
    asked: &Touch,
) -> Result<(), Failure> {
    // The root has no name that could be taken.
    let made = !asked.no_create && !path.is_root() && make(kfs, path).await?;
    if !made || asked.date.is_some() {
        let to = Attributes {
            mtime: Some(asked.date.map_or(TimeOf::Change, TimeOf::Given)),
            ..Attributes::default()
        };
        match kfs.set_attributes(path.bytes(), to).await {
            Err(error) if asked.no_create && error.status == Status::NotFound => return Ok(()),
            set => set?,
        }
    }
    screen.json(&Did::new(if made { "made" } else { "set" }, path))
}

/// Makes an empty file, unless something is there.
async fn make(kfs: &Kfs, path: &RemotePath) -> Result<bool, Failure> {
    let options = CreateOptions {
        owner: ownership(0o666 & !umask()),
        replication: 0,
        keep: Keep::Always,
    };
    match kfs.create(path.bytes(), options).await {
        Ok(writer) => {
            writer.close().await?;
            Ok(true)
        }
        Err(error) if error.status == Status::Exists => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A mode as `chmod` takes it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Mode {
    Bits(u32),
    Clauses(Vec<Clause>),
}

/// One change of a mode: whose bits, how, and which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Clause {
    /// The bits of those who are named; `None`: nobody is, and the process's mask says which stay.
    who: Option<u32>,
    change: Change,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Add,
    Take,
    Set,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// For everybody, and where it may be executed already, or is a directory.
    Bits { all: u32, executable: u32 },
    /// Those of this class: how far its bits are to be shifted to the right.
    Copy(u32),
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o1007;

impl Mode {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no mode: write it as 644, u+x, g-w or a=rX,o=");
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let bits = u32::from_str_radix(text, 8).map_err(|_| bad())?;
            return if bits <= 0o7777 {
                Ok(Self::Bits(bits))
            } else {
                Err(bad())
            };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let at = part.find(['+', '-', '=']).ok_or_else(bad)?;
            let mut who = None;
            for class in part[..at].chars() {
                let bits = match class {
                    'u' => USER,
                    'g' => GROUP,
                    'o' => OTHER,
                    'a' => USER | GROUP | OTHER,
                    _ => return Err(bad()),
                };
                who = Some(who.unwrap_or(0) | bits);
            }
            let mut rest = &part[at..];
            while let Some(operator) = rest.chars().next() {
                let end = rest[1..]
                    .find(['+', '-', '='])
                    .map_or(rest.len(), |at| at + 1);
                let change = match operator {
                    '+' => Change::Add,
                    '-' => Change::Take,
                    _ => Change::Set,
                };
                let what = What::parse(&rest[1..end]).ok_or_else(bad)?;
                clauses.push(Clause { who, change, what });
                rest = &rest[end..];
            }
        }
        Ok(Self::Clauses(clauses))
    }

    /// What it makes of the mode that something has.
    fn of(&self, attrs: &Attrs, mask: u32) -> u32 {
        let clauses = match self {
            Self::Bits(bits) => return *bits,
            Self::Clauses(clauses) => clauses,
        };
        clauses.iter().fold(attrs.mode, |mode, clause| {
            let who = clause.who.unwrap_or(USER | GROUP | OTHER);
            let kept = if clause.who.is_none() { mask } else { 0 };
            let is_executable = attrs.kind == Kind::Directory || mode & 0o111 != 0;
            let bits = match clause.what {
                What::Bits { all, executable } => all | if is_executable { executable } else { 0 },
                What::Copy(shift) => (mode >> shift & 7) * 0o111,
            };
            let bits = bits & who & !kept;
            match clause.change {
                Change::Add => mode | bits,
                Change::Take => mode & !bits,
                // Of a directory, the bits that make what is in it inherit stay unless they are named.
                Change::Set if attrs.kind == Kind::Directory => {
                    mode & !(who & 0o777) & !(who & 0o1000) | bits
                }
                Change::Set => mode & !who | bits,
            }
        })
    }
}

impl What {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "u" => return Some(Self::Copy(6)),
            "g" => return Some(Self::Copy(3)),
            "o" => return Some(Self::Copy(0)),
            _ => {}
        }
        let (mut all, mut executable) = (0, 0);
        for letter in text.chars() {
            match letter {
                'r' => all |= 0o444,
                'w' => all |= 0o222,
                'x' => all |= 0o111,
                'X' => executable = 0o111,
                's' => all |= 0o6000,
                't' => all |= 0o1000,
                _ => return None,
            }
        }
        Some(Self::Bits { all, executable })
    }
}

/// An owner as `chown` takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Owner {
    fn parse(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let user = Some(user).filter(|user| !user.is_empty());
        if user.is_none() && group.is_none() {
            return Err(format!(
                "'{text}' names nobody: write it as USER, USER:GROUP or :GROUP"
            ));
        }
        Ok(Self {
            uid: user
                .map(|name| id(name, "user", Path::new("/etc/passwd")))
                .transpose()?,
            gid: group
                .map(|name| id(name, "group", Path::new("/etc/group")))
                .transpose()?,
        })
    }
}

/// The id of a name, by a file of lines `name:…:id:…`; or the number that it is. -1 names nobody, as everywhere.
fn id(name: &str, kind: &str, names: &Path) -> Result<u32, String> {
    if let Ok(number) = name.parse::<u32>() {
        return if number == u32::MAX {
            Err(format!("{number} is no {kind}"))
        } else {
            Ok(number)
        };
    }
    let unknown = || {
        format!(
            "there is no {kind} '{name}' in {} on this machine: give its number",
            names.display()
        )
    };
    let text = std::fs::read(names).map_err(|_| unknown())?;
    let text = String::from_utf8_lossy(&text);
    text.lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| {
            let found = fields.next() == Some(name);
            fields.nth(1).filter(|_| found)?.parse().ok()
        })
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kfs_core::ids::FileId;

    fn attrs(kind: Kind, mode: u32) -> Attrs {
        Attrs {
            file: FileId(7),
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            replication: 1,
            links: 1,
            mtime: UnixNanos(0),
            ctime: UnixNanos(0),
            crtime: UnixNanos(0),
        }
    }

    /// What coreutils make of the same.
    #[test]
    fn modes_change_as_everywhere() {
        for (kind, before, text, after) in [
            (Kind::File, 0o644, "755", 0o755),
            (Kind::File, 0o644, "u+x", 0o744),
            (Kind::File, 0o644, "+x", 0o755),
            (Kind::File, 0o644, "+w", 0o644),
            (Kind::File, 0o666, "a-w", 0o444),
            (Kind::File, 0o666, "-w", 0o466),
            (Kind::File, 0o644, "go=", 0o600),
            (Kind::File, 0o640, "o=g", 0o644),
            (Kind::File, 0o640, "g=u,o-r", 0o660),
            (Kind::File, 0o644, "a+X", 0o644),
            (Kind::File, 0o744, "a+X", 0o755),
            (Kind::Directory, 0o644, "a+X", 0o755),
            (Kind::File, 0o755, "u+s,g+s,+t", 0o7755),
            (Kind::File, 0o7755, "u-s", 0o3755),
            (Kind::File, 0o644, "u+x-r", 0o344),
            (Kind::Directory, 0o2755, "g=rx", 0o2755),
            (Kind::File, 0o2755, "g=rx", 0o755),
        ] {
            let mode = Mode::parse(text).unwrap();
            let got = mode.of(&attrs(kind, before), 0o022);
            assert_eq!(got, after, "{before:o} {text}: {got:o}");
        }
        for text in ["", "8", "77777", "u", "x+r", "u+q", "u+x,", "u+gr"] {
            assert!(Mode::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn owners_are_numbers_or_names_of_this_machine_and_never_guessed() {
        let owner = |uid, gid| Ok(Owner { uid, gid });
        assert_eq!(Owner::parse("7"), owner(Some(7), None));
        assert_eq!(Owner::parse("7:8"), owner(Some(7), Some(8)));
        assert_eq!(Owner::parse(":8"), owner(None, Some(8)));
        assert_eq!(Owner::parse("root:root"), owner(Some(0), Some(0)));
        for text in [
            "",
            ":",
            "no such user",
            "4294967295",
            "-1",
            "7:no such group",
        ] {
            assert!(Owner::parse(text).is_err(), "{text}");
        }
    }
}
