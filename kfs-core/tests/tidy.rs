//! The rules of the house as tests: who may import whom, what the core never does, what the dependency graphs
//! of the two builds may hold. Why each rule is there: `docs/ARCHITECTURE.md`, "What is not there".
//!
//! Rules over source look at code without comments and literals; rules over graphs ask `cargo tree`.
mod source;

use source::{Source, root, sources, tokens};
use std::collections::BTreeSet;
use std::process::Command;

/// What ships: everything but the simulator and the fuzz targets.
const SHIPPED: &[&str] = &["kfs-core", "kfs-drive", "kfs-server", "kfs-client"];
/// Where sources of the whole project stand.
const ALL: &[&str] = &["kfs-core", "kfs-server", "kfs-client", "simtests", "fuzz"];

/// Files of the core that may name a hash table, each with the reason why its order cannot be seen.
const HASHED: &[(&str, &str)] = &[];

/// Crates that are not used, anywhere: what is used instead stands in `deny.toml`.
const BANNED: &[&str] = &[
    "adler 1.",
    "backoff",
    "bincode",
    "figment",
    "fxhash",
    "im",
    "instant",
    "metrics",
    "paste",
    "reed-solomon-erasure",
    "rustls-pemfile",
];

/// Banned crates that only the simulator brings, each with the reason why that is borne.
const BANNED_IN_SIMULATOR: &[(&str, &str)] = &[(
    "bincode 1.",
    "madsim encodes its own calls between nodes with it",
)];

/// Crates whose choices differ between two runs of one seed; none of ours reaches them in the simulation.
const UNSEEDED: &[&str] = &["ahash", "getrandom 0.2."];
/// Those that the simulator brings all the same, each with the reason why nothing is decided by it.
const UNSEEDED_IN_SIMULATOR: &[(&str, &str)] = &[
    (
        "ahash",
        "madsim hashes its own configuration with it, under a fixed seed; it has no table of it",
    ),
    (
        "getrandom 0.2.",
        "a default feature of madsim's rand 0.8, whose generators it seeds from the run's seed itself",
    ),
];

fn fail_if_any(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn check(dirs: &[&str], rule: &str, broken_by: impl Fn(&Source) -> Vec<String>) {
    let sources = sources(dirs);
    assert!(!sources.is_empty(), "no sources below {dirs:?}");
    let mut found = vec![];
    for source in &sources {
        found.extend(
            broken_by(source)
                .into_iter()
                .map(|what| format!("{}: {what}", source.path)),
        );
    }
    fail_if_any(rule, &found);
}

#[test]
fn the_core_reads_no_clock_file_socket_or_entropy_and_starts_no_thread() {
    let paths: &[&[&str]] = &[
        &["tokio"],
        &["madsim"],
        &["std", "fs"],
        &["std", "env"],
        &["std", "io"],
        &["std", "os"],
        &["std", "process"],
        &["std", "thread"],
        &["std", "time"],
        &["std", "net", "TcpStream"],
        &["std", "net", "TcpListener"],
        &["std", "net", "UdpSocket"],
        &["std", "net", "ToSocketAddrs"],
        &["std", "net", "*"],
        &["Instant", "now"],
        &["SystemTime", "now"],
    ];
    let words = [
        "SystemTime",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "thread_rng",
        "OsRng",
        "SysRng",
        "getrandom",
        "println",
        "eprintln",
    ];
    check(
        &["kfs-core/src"],
        "the core is given time, bytes and seeds; it fetches none",
        |source| {
            let mut found = vec![];
            for path in source.paths() {
                if paths.iter().any(|banned| {
                    path.windows(banned.len())
                        .next()
                        .is_some_and(|start| start == *banned)
                }) {
                    found.push(path.join("::"));
                }
            }
            found.extend(
                words
                    .iter()
                    .filter(|word| source.has_word(word))
                    .map(|word| (*word).to_owned()),
            );
            if source.path != "kfs-core/src/rng.rs"
                && source.paths().iter().any(|path| path[0] == "rand")
            {
                found.push("rand, which only kfs-core/src/rng.rs may use".into());
            }
            found
        },
    );
}

#[test]
fn nothing_in_the_core_is_decided_by_the_order_of_a_hash_table() {
    check(
        &["kfs-core/src"],
        "BTreeMap, or a line with the reason in HASHED",
        |source| {
            let words = ["HashMap", "HashSet", "RandomState", "hash_map"]
                .iter()
                .filter(|word| source.has_word(word));
            let allowed = HASHED.iter().any(|(path, _)| *path == source.path);
            words
                .filter(|_| !allowed)
                .map(|word| (*word).to_owned())
                .collect()
        },
    );
    for (path, reason) in HASHED {
        assert!(
            !reason.is_empty() && root().join(path).is_file(),
            "HASHED names {path}"
        );
    }
}

#[test]
fn the_core_forbids_unsafe_code() {
    let lib = &sources(&["kfs-core/src"])
        .into_iter()
        .find(|source| source.path == "kfs-core/src/lib.rs");
    let lib = lib.as_ref().expect("the core has a root");
    assert!(
        lib.code.contains("#![forbid(unsafe_code)]"),
        "kfs-core/src/lib.rs no longer forbids unsafe code"
    );
}

/// Modules of the crate's top level that a file of module `own` names.
fn top_modules(source: &Source) -> BTreeSet<String> {
    let inside = source
        .path
        .trim_start_matches("kfs-core/src/")
        .trim_end_matches(".rs");
    let depth = inside
        .trim_end_matches("/mod")
        .split('/')
        .filter(|part| *part != "lib")
        .count();
    let mut named = BTreeSet::new();
    for path in source.paths() {
        let supers = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let top = match path[0].as_str() {
            "crate" | "kfs_core" => path.get(1),
            "super" if supers >= depth => path.get(supers),
            _ => None,
        };
        named.extend(top.cloned());
    }
    named
}

#[test]
fn machines_do_not_import_one_another() {
    for (own, others) in [
        ("meta", ["chunk", "client"]),
        ("chunk", ["meta", "client"]),
        ("client", ["meta", "chunk"]),
    ] {
        check(
            &[&format!("kfs-core/src/{own}")],
            "they talk over the wire only",
            |source| {
                let named = top_modules(source);
                others
                    .iter()
                    .filter(|other| named.contains(**other))
                    .map(|other| format!("imports {other}"))
                    .collect()
            },
        );
    }
}

#[test]
fn the_wire_and_what_is_below_it_know_no_machine() {
    let machines = ["meta", "chunk", "client", "outbox", "machine"];
    check(
        &["kfs-core/src/wire"],
        "the wire is what machines share",
        |source| {
            let named = top_modules(source);
            machines
                .iter()
                .filter(|name| named.contains(**name))
                .map(|name| format!("imports {name}"))
                .collect()
        },
    );
    let below = [
        "block", "buggify", "identity", "ids", "limits", "machine", "outbox", "planted", "probe",
        "rng", "time",
    ];
    for source in sources(&["kfs-core/src"]) {
        if below
            .iter()
            .any(|name| source.path == format!("kfs-core/src/{name}.rs"))
        {
            let named = top_modules(&source);
            let machine = ["meta", "chunk", "client"]
                .iter()
                .find(|name| named.contains(**name));
            assert!(machine.is_none(), "{} imports {machine:?}", source.path);
        }
    }
}

#[test]
fn state_records_and_placement_know_no_links_and_no_clock() {
    let pure = [
        "tree",
        "key",
        "record",
        "apply",
        "state",
        "chunkmap",
        "placement",
        "replication",
        "rebalance",
    ];
    for source in sources(&["kfs-core/src/meta"]) {
        let stem = source
            .path
            .trim_start_matches("kfs-core/src/meta/")
            .trim_end_matches(".rs");
        if pure.contains(&stem.split('/').next().unwrap_or(stem)) {
            let words = ["LinkId", "Instant", "Now", "Outbox"]
                .into_iter()
                .filter(|word| source.has_word(word));
            let found: Vec<_> = words.collect();
            assert!(
                found.is_empty(),
                "{}: {found:?}: it is the same live and on replay",
                source.path
            );
        }
    }
}

/// What cargo prints with these arguments.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    // Flags from the environment take the place of the configuration's, and its cfg with them.
    command
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_RUSTFLAGS");
    let output = command
        .current_dir(root())
        .args(arguments)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "cargo {}: {errors}",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// `name version` from a line of `cargo tree`.
fn package(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    Some(format!("{name} {}", version.trim_start_matches('v')))
}

/// The packages of a dependency graph as `name version`, by `cargo tree` with these arguments.
fn graph(arguments: &[&str]) -> BTreeSet<String> {
    let packages: BTreeSet<String> = cargo(arguments).lines().filter_map(package).collect();
    assert!(
        !packages.is_empty(),
        "cargo {} lists something",
        arguments.join(" ")
    );
    packages
}

fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let all = [
        &[
            "tree",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--edges",
            "normal,build",
        ],
        arguments,
    ]
    .concat();
    graph(&all)
}

/// Whether a package is the one a rule names: by name, or by name and the beginning of its version.
fn is_package(package: &str, rule: &str) -> bool {
    let (name, version) = package.split_once(' ').expect("a name and a version");
    match rule.split_once(' ') {
        Some((wanted, prefix)) => name == wanted && version.starts_with(prefix),
        None => name == rule,
    }
}

fn assert_without(graph: &BTreeSet<String>, rules: &[&str], whose: &str) {
    let found: Vec<_> = graph
        .iter()
        .filter(|package| rules.iter().any(|rule| is_package(package, rule)))
        .collect();
    assert!(found.is_empty(), "{whose} has {found:?}");
}

#[test]
fn crates_depend_only_downwards() {
    let runtime = [
        "tokio",
        "madsim",
        "madsim-tokio",
        "mio",
        "socket2",
        "getrandom",
    ];
    let core = tree(&["-p", "kfs-core"]);
    assert_without(&core, &runtime, "the core");
    assert_without(
        &core,
        &["kfs-drive", "kfs-server", "kfs-client", "simtests"],
        "the core",
    );
    let drive = tree(&["-p", "kfs-drive", "--all-features"]);
    assert_without(
        &drive,
        &["kfs-server", "kfs-client", "simtests"],
        "the loop",
    );
    let server = tree(&["-p", "kfs-server", "--all-features"]);
    assert_without(&server, &["kfs-client", "simtests"], "the server");
    let client = tree(&["-p", "kfs-client", "--no-default-features"]);
    assert_without(&client, &["kfs-server", "simtests"], "the client library");
}

#[test]
fn only_the_command_of_the_client_starts_servers() {
    let binary = [
        "kfs-client/src/bin/",
        "kfs-client/src/cli/",
        "kfs-client/src/main.rs",
    ];
    check(
        &["kfs-client/src"],
        "the library does not know the servers",
        |source| {
            let outside = !binary.iter().any(|place| source.path.starts_with(place));
            if outside && source.has_word("kfs_server") {
                vec!["names kfs_server".into()]
            } else {
                vec![]
            }
        },
    );
    check(
        &["kfs-server/src", "kfs-server/drive/src"],
        "servers do not know the client",
        |source| {
            if source.has_word("kfs_client") {
                vec!["names kfs_client".into()]
            } else {
                vec![]
            }
        },
    );
    check(
        &["kfs-server/drive/src"],
        "the loop knows the core only",
        |source| {
            if source.has_word("kfs_server") {
                vec!["names kfs_server".into()]
            } else {
                vec![]
            }
        },
    );
}

#[test]
fn what_ships_holds_nothing_of_the_simulator() {
    for package in SHIPPED {
        let graph = tree(&["-p", package, "--all-features"]);
        let madsim: Vec<_> = graph
            .iter()
            .filter(|package| package.starts_with("madsim"))
            .collect();
        assert!(madsim.is_empty(), "{package} has {madsim:?}");
    }
}

#[test]
fn the_simulation_draws_nothing_that_its_seed_does_not_give() {
    let sim = [
        "--config",
        ".cargo/sim.toml",
        "tree",
        "--edges",
        "normal,build",
        "-p",
        "simtests",
        "--format",
        "{p}",
    ];
    let lines = cargo(&[&sim[..], &["--prefix", "depth", "--no-dedupe"]].concat());
    let (mut ours, mut simulators) = (BTreeSet::new(), BTreeSet::new());
    // What madsim's own crates bring stands below them, at a greater depth.
    let mut below = usize::MAX;
    for line in lines.lines() {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let depth: usize = line[..digits]
            .parse()
            .expect("each line begins with its depth");
        let Some(package) = package(&line[digits..]) else {
            continue;
        };
        if depth <= below {
            below = if package.starts_with("madsim") {
                depth
            } else {
                usize::MAX
            };
        }
        if depth > below {
            simulators.insert(package)
        } else {
            ours.insert(package)
        };
    }
    let drives = ours.iter().any(|package| is_package(package, "kfs-drive"));
    let simulated = ours
        .iter()
        .any(|package| is_package(package, "madsim-tokio"));
    assert!(
        !drives || simulated,
        "the simulation's loop is not built on the simulator: {ours:?}"
    );
    assert_without(&ours, &["tokio", "mio", "socket2"], "the simulation");
    assert_without(&ours, UNSEEDED, "the simulation");
    for rule in UNSEEDED {
        let allowed = UNSEEDED_IN_SIMULATOR.iter().find(|(name, _)| name == rule);
        let there = simulators.iter().any(|package| is_package(package, rule));
        assert!(
            allowed.is_none_or(|(_, reason)| !reason.is_empty()),
            "{rule} is allowed for a reason"
        );
        assert!(allowed.is_some() || !there, "the simulator brings {rule}");
        assert!(
            !drives || allowed.is_none() || there,
            "{rule} is allowed and not there"
        );
    }
}

#[test]
fn crates_nobody_looks_after_are_not_used() {
    let built = [
        &["tree", "--prefix", "none", "--format", "{p}"][..],
        &["--workspace", "--all-features"],
    ]
    .concat();
    assert_without(&graph(&built), BANNED, "the workspace, tests included,");
    let mut packages = locked("Cargo.lock");
    for (rule, reason) in BANNED_IN_SIMULATOR {
        assert!(!reason.is_empty(), "{rule} is borne for a reason");
        let before = packages.len();
        packages.retain(|package| !is_package(package, rule));
        assert!(packages.len() < before, "{rule} is borne and not there");
    }
    assert_without(&packages, BANNED, "Cargo.lock");
    assert_without(&locked("fuzz/Cargo.lock"), BANNED, "fuzz/Cargo.lock");
    let deny =
        std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is in the repository");
    for rule in BANNED {
        let name = rule.split(' ').next().expect("a name");
        let listed = deny.contains(&format!("crate = \"{name}\""))
            || deny.contains(&format!("crate = \"{name}@"));
        assert!(listed, "deny.toml does not ban {name}");
    }
}

/// The packages of a lock file, as `name version`.
fn locked(file: &str) -> BTreeSet<String> {
    let text =
        std::fs::read_to_string(root().join(file)).expect("the lock file is in the repository");
    let value = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    let mut packages = BTreeSet::new();
    let mut name = None;
    for line in text.lines() {
        if line.starts_with("name = ") {
            name = Some(value(line));
        } else if line.starts_with("version = ")
            && let Some(name) = name.take()
        {
            packages.insert(format!("{name} {}", value(line)));
        }
    }
    assert!(packages.len() > 5, "{file} lists packages");
    packages
}

#[test]
fn every_select_is_biased() {
    check(
        ALL,
        "an unbiased select differs between two runs of one seed",
        |source| {
            let tokens = tokens(&source.code);
            let selects = (0..tokens.len())
                .filter(|at| tokens[*at] == "select" && follows(&tokens, *at, &["!"]));
            selects
                .filter(|at| !follows(&tokens, *at + 2, &["biased", ";"]))
                .map(|_| "a select without `biased;`".to_owned())
                .collect()
        },
    );
}

fn follows(tokens: &[String], at: usize, wanted: &[&str]) -> bool {
    tokens[at + 1..]
        .iter()
        .map(String::as_str)
        .take(wanted.len())
        .eq(wanted.iter().copied())
}

#[test]
fn no_file_is_named_for_having_no_owner() {
    let words = ["manager", "handler", "helper", "util", "context"];
    check(ALL, "a file is named for the noun it is about", |source| {
        words
            .iter()
            .filter(|word| source.path.contains(**word))
            .map(|word| (*word).to_owned())
            .collect()
    });
}

#[test]
fn every_file_says_what_it_is() {
    check(ALL, "each source file opens with `//!`", |source| {
        if source.text.starts_with("//!") {
            vec![]
        } else {
            vec!["does not".into()]
        }
    });
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("TO", "DO"),
    ];
    check(ALL, "what is not done is not in the code", |source| {
        let mut found: Vec<String> = marks
            .iter()
            .filter(|mark| source.text.contains(**mark))
            .map(|m| (*m).into())
            .collect();
        for name in ["todo", "unimplemented"] {
            if source.has_tokens(&[name, "!"]) {
                found.push(format!("{name}!"));
            }
        }
        found
    });
}

#[test]
fn planted_bugs_are_compiled_away_outside_the_simulator() {
    use kfs_core::buggify::{self, Site};
    use kfs_core::planted::{Bug, is};
    // Evaluated by the compiler: a switch that could be thrown at run time does not build here.
    #[cfg(not(madsim))]
    const {
        let mut at = 0;
        while at < Bug::ALL.len() {
            assert!(!is(Bug::ALL[at]));
            at += 1;
        }
        at = 0;
        while at < Site::ALL.len() {
            assert!(!buggify::is(Site::ALL[at]));
            at += 1;
        }
    }
    #[cfg(madsim)]
    assert!(
        Bug::ALL.iter().all(|bug| !is(*bug)) && Site::ALL.iter().all(|site| !buggify::is(*site)),
        "none is planted, and nothing is pushed, unless a run does it"
    );
    check(
        &["kfs-core/src", "kfs-server/src", "kfs-client/src"],
        "bugs are planted, and sites armed, by simtests only",
        |source| {
            let plants = source
                .paths()
                .iter()
                .any(|path| path.ends_with(&["planted".to_owned(), "plant".to_owned()]));
            let arms = source
                .paths()
                .iter()
                .any(|path| path.ends_with(&["buggify".to_owned(), "arm".to_owned()]));
            let mut found = Vec::new();
            if plants {
                found.push("plants a bug".into());
            }
            if arms {
                found.push("arms what pushes rare paths".into());
            }
            found
        },
    );
    for manifest in [
        "kfs-core/Cargo.toml",
        "kfs-server/Cargo.toml",
        "kfs-client/Cargo.toml",
    ] {
        let text = std::fs::read_to_string(root().join(manifest)).expect("a manifest");
        assert!(
            !["planted", "buggify", "probe"]
                .iter()
                .any(|name| text.contains(name)),
            "{manifest}: a feature would leak into releases by unification"
        );
    }
}

/// The first sentence of a file's head.
fn first_sentence(source: &Source) -> String {
    let head = source
        .text
        .lines()
        .map_while(|line| line.strip_prefix("//!"));
    let text = head
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let end = text
        .find(". ")
        .or_else(|| text.strip_suffix('.').map(str::len))
        .unwrap_or(text.len());
    text[..end].to_owned()
}

#[test]
fn the_map_of_the_code_stays_true() {
    let dirs = [
        "kfs-core/src",
        "kfs-server/drive/src",
        "kfs-server/src",
        "kfs-client/src",
        "simtests/src",
        "fuzz/src",
    ];
    let mut map = String::new();
    let mut dir = String::new();
    let mut files: Vec<Source> = dirs.iter().flat_map(|dir| sources(&[dir])).collect();
    files.sort_by_key(|source| {
        source
            .path
            .rsplit_once('/')
            .map(|(dir, name)| (dir.to_owned(), name.to_owned()))
    });
    for source in files {
        let (place, name) = source
            .path
            .rsplit_once('/')
            .expect("a file stands in a directory");
        if place != dir {
            map += &format!("{place}/\n");
            dir = place.to_owned();
        }
        map += &format!("  {name:<18} {}\n", first_sentence(&source));
    }
    let path = root().join("docs/ARCHITECTURE.md");
    let page = std::fs::read_to_string(&path).expect("the page is in the repository");
    let (before, rest) = page.split_once("```text\n").expect("the page has a map");
    let (listed, after) = rest.split_once("```\n").expect("the map ends");
    if std::env::var("KFS_GOLDEN").is_ok() {
        std::fs::write(&path, format!("{before}```text\n{map}```\n{after}"))
            .expect("the page can be written");
        return;
    }
    let differs = listed
        .lines()
        .zip(map.lines())
        .find(|(listed, is)| listed != is);
    assert!(
        listed == map,
        "KFS_GOLDEN=add writes the map anew; it differs first at {differs:?}"
    );
}

#[test]
fn the_lexer_of_these_tests_sees_code_and_nothing_else() {
    let own = sources(&["kfs-core/tests"])
        .into_iter()
        .find(|source| source.path == "kfs-core/tests/tidy.rs");
    let own = own.expect("this file");
    assert!(
        own.has_word("biased_in_a_string") != own.text.contains("biased_in_a_string"),
        "literals are taken out"
    );
    let paths = own.paths();
    let has = |wanted: &str| paths.iter().any(|path| path.join("::") == wanted);
    assert!(
        has("source::Source") && has("source::sources") && has("std::process::Command"),
        "trees are flattened"
    );
}
