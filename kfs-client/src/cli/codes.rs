//! Every code that the product speaks in: of errors (`KFS-E021`) and of the reasons of a cluster's health
//! (`SERVERS_DOWN`), with what it means, why it comes, and what to do.
//!
//! A test holds this table against what the product can say: a code that is not here, or only here, fails it.
use serde::Serialize;

/// What is to be known of a code.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
pub(crate) struct Meaning {
    /// As it is printed.
    pub(crate) code: &'static str,
    pub(crate) what: &'static str,
    pub(crate) why: &'static str,
    #[serde(rename = "do")]
    pub(crate) remedy: &'static str,
}

const fn code(
    code: &'static str,
    what: &'static str,
    why: &'static str,
    remedy: &'static str,
) -> Meaning {
    Meaning {
        code,
        what,
        why,
        remedy,
    }
}

/// The codes: errors by their numbers, then the reasons of a meta server's health, then of a chunkserver's.
#[rustfmt::skip]
pub(crate) const CODES: &[Meaning] = &[
    code("KFS-E001", "A name of the path is not there.",
        "It was never made, was removed or renamed, or a name in the path is misspelt; names are compared byte by byte.",
        "List the directory above it with 'kfs ls'. 'kfs log blame PATH --data DIR' on the meta server's data directory says which record removed it."),
    code("KFS-E002", "The name is there already.",
        "Something was to be made, stored, copied or renamed under a name that is taken, and was not told to replace it.",
        "Choose another name, or give --force ('kfs put', 'kfs get', 'kfs cp') to replace a file atomically. A directory is never replaced: 'kfs rm -r' it first."),
    code("KFS-E003", "A part of the path is a file, and was to be a directory.",
        "A path goes on behind the name of a file, or a verb for directories was given a file.",
        "Look at the parts of the path with 'kfs stat'."),
    code("KFS-E004", "It is a directory, and was to be a file.",
        "A verb for files was given a directory.",
        "Name a file in it; 'kfs rm', 'kfs cp' take -r for directories, 'kfs put' and 'kfs get' take them as they are."),
    code("KFS-E005", "The directory has entries.",
        "Only empty directories are removed by 'kfs rmdir' or replaced by a rename.",
        "Remove its entries first, or all of it with 'kfs rm -r'; --dry-run shows what that would remove."),
    code("KFS-E006", "A name cannot be.",
        "A name has 1 to 255 bytes, any but '/' and NUL, and is not '.' or '..'; a path has at most 4096 bytes.",
        "Choose a name that fits."),
    code("KFS-E007", "The request makes no sense.",
        "The command line is wrong (exit code 2), or what was asked for cannot be: a directory into itself, a scan that has ended, a session that does not write the file.",
        "Read what stands behind the code, and 'kfs VERB --help'."),
    code("KFS-E008", "The caller may not do this.",
        "The root directory cannot be removed, or the server does not do this for this client.",
        "Name what is meant; 'kfs ls /' lists what there is."),
    code("KFS-E009", "Bytes that were written cannot be written again.",
        "Only servers of builds before the first release say so: today a file may be written over by who has it open for writing.",
        "Update the servers; 'kfs doctor' shows their versions."),
    code("KFS-E020", "Not enough chunkservers are up for a new chunk.",
        "A chunk is begun on as many servers as the file asks for, and on no fewer than --min-replicas (2) of the meta server.",
        "Start chunkservers; 'kfs servers' shows those that are down, and when they were last heard of."),
    code("KFS-E021", "No chunkserver has room for a new chunk.",
        "Each server keeps some of its disk free, and a chunk needs room on as many servers as the file has replicas.",
        "Add a server, or remove files; their room comes back when the reclaim that 'kfs status' shows is done and --trash-grace (1 h) is over. 'kfs df' shows the room."),
    code("KFS-E022", "The chain of a chunk that is being written is broken, and could not be gone on with.",
        "One of the servers that take the bytes stopped, hangs, or cannot reach its neighbour, and no other chain got anything done in the time of the call.",
        "Write the file again, or append from where it ends ('kfs stat'): it is placed on servers that are up. What was synced is there."),
    code("KFS-E023", "The chunk is not served there.",
        "That server has no such replica, has one that is damaged, older, or shorter than the log says, or was not confirmed by the meta server since it started.",
        "Nothing, if others have it: they are asked instead. 'kfs explain PATH' shows who has what, 'kfs fsck' what cannot be read."),
    code("KFS-E024", "Bytes do not match their sums.",
        "A disk or memory changed them. Such bytes are never given out: another replica is read, and the damaged one made anew. With this error, every replica that was asked is damaged; from 'kfs verify', a file of a data directory is.",
        "Restore the file from where it came from. 'kfs fsck --verify-data' finds all such files; look at the disks of the servers that 'kfs explain --verify-data PATH' names."),
    code("KFS-E025", "No replica of a chunk can be had now.",
        "All servers that have it are down, or were not confirmed yet after a start.",
        "Start them: 'kfs servers' shows which are down. Their data is not lost by that; if their disks are, the file is."),
    code("KFS-E030", "The session is unknown, or has ended.",
        "The client was not heard of for two minutes (it was stopped, or cut off from the meta server).",
        "Open the file again. What was synced is there; a file that was being stored under a temporary name is gone."),
    code("KFS-E031", "Not ready, or too much is asked at once.",
        "The meta server has just started, a file is being written by another client, or a queue that is bounded is full. 'kfs' asks again by itself until its --timeout.",
        "Try again later, or give it more --timeout."),
    code("KFS-E032", "The meta server refuses changes.",
        "Its disk is full, or a part of its log is missing (it was restored from an old backup). Reads go on.",
        "'kfs status' says which: make room, or see 'kfs explain LOG_TAIL_LOST'."),
    code("KFS-E040", "A server cannot be reached.",
        "It does not run, listens elsewhere, its name is unknown, or the network between is broken.",
        "See that it runs, and that --meta or KFS_META names the meta server. 'kfs doctor' tries it from here."),
    code("KFS-E041", "The time for the call is used up.",
        "What it needs did not come in time: a server that hangs, a network that loses too much, or more work than the time is for. The text says what was tried.",
        "See 'kfs status', and give it more --timeout."),
    code("KFS-E042", "The other end broke the protocol, or speaks another one.",
        "The two ends are of different versions, or something that is no server of KFS listens there.",
        "See that both ends are the same version ('kfs --version', 'kfs status'), and that the address is right."),
    code("KFS-E043", "Whether it was done is not known.",
        "The answer was lost, and the session that could have asked for it again has ended.",
        "Look whether it was done before doing it again; it is done once or not at all, never in part."),
    code("KFS-E050", "A file or device of this machine failed.",
        "What stands behind the code is what the operating system said: not there (exit code 3), there already (4), no permission or no room (7), or anything else (1).",
        "Mend that file, directory or disk; nothing in the cluster is wrong."),
    code("KFS-E060", "A server's disk failed a write or a sync of its log or identity; the server stopped.",
        "A sync that failed is never tried again: nobody could know what it lost. Nothing that was acknowledged is lost.",
        "Look at the disk and its file system ('dmesg') before the next start."),
    code("KFS-E061", "A data directory is damaged; the server does not start on it.",
        "The log or the identity does not match its sums, and neither a mirror nor an older checkpoint stands for it.",
        "Keep a copy of the directory. 'kfs verify DIR' says what in it is whole. Put the damaged file back from the mirror or a backup ('scripts/restore')."),
    code("KFS-E062", "A data directory, or the cluster, belongs elsewhere.",
        "The directory holds something else, or is of another cluster or kind of server; or the meta server knows this chunkserver with a newer start, as of a disk that was copied.",
        "See that --data, --meta and --cluster-id are those of one cluster, and that the disk is mounted where it should be."),
    code("KFS-E063", "An address cannot be listened on.",
        "Another process listens there, this machine has no such address, or the port is below 1024.",
        "'ss -ltnp' names the process; choose another address with --listen or --http. Port 0 takes any that is free."),
    code("KFS-E064", "Another server uses the data directory.",
        "One server runs on a directory at a time; so does one command with --local.",
        "Stop the other one ('fuser -v DIR' names it), or give this one a directory of its own."),
    code("KFS-E065", "A data directory cannot be opened, or the process cannot do what every server must.",
        "A path that is no directory, a disk that fails, too few file descriptors.",
        "Mend what the text names; 'kfs doctor --data DIR' looks at it."),
    code("KFS-E066", "A flag, an environment variable or the configuration file is wrong.",
        "A key is misspelt, a value has the wrong form, or two settings contradict one another.",
        "'kfs config show --origin metaserver' (or chunkserver) says what is in force and where it comes from."),
    code("KFS-E067", "A host name has no address.",
        "It is misspelt, or the name service does not answer.",
        "Check the name, or give an IP address."),
    code("KFS-E068", "A server is broken: something that must hold did not.",
        "A bug. What failed stands in its log above.",
        "Start it again; what was acknowledged is there. Report the lines above it, and a recording (--record) if you can."),

    code("CHUNKS_UNAVAILABLE", "Chunks are on no server that is up: their files cannot be read whole.",
        "All servers that have them are down, or came back without them.",
        "Start those servers ('kfs servers'). 'kfs fsck' names the files."),
    code("READ_ONLY", "The meta server refuses changes, and serves reads.",
        "As a rule its disk is full; the text says why.",
        "Make room on the disk of its data directory: it goes on by itself."),
    code("LOG_TAIL_LOST", "The meta server's log has lost its end, so changes are refused.",
        "A chunkserver has seen more of the log than there is: the server was restored from an old backup, or its disk was set back.",
        "If there is a newer backup or the old disk, start it on that. If not: 'kfs admin accept-rollback' when all chunkservers are up; chunks of the lost part become files in /lost+found."),
    code("CHANGES_WAIT", "Changes wait, after a start of the meta server.",
        "It waits until every chunkserver of before has said hello, or for six seconds and one of any: so what a server knows that comes in that time is known first.",
        "Nothing, if it is over soon; else start chunkservers."),
    code("CHECKPOINT_FAILED", "The last checkpoint of the namespace could not be made.",
        "The disk of the meta server is full or failed; the text says why. The log is whole, and grows until it works.",
        "Make room; it is tried again after a minute. 'kfs checkpoint' tries it now."),
    code("LOG_REPAIRED", "At its start the meta server repaired one copy of its log from the other.",
        "A part of one copy was damaged or missing. Nothing is lost.",
        "Look at the disk of the copy that the text names; remove the file '….damaged' when you have seen enough. It is said until the next start."),
    code("FEW_SERVERS", "Fewer chunkservers are up than a new chunk needs.",
        "Servers are down, or --min-replicas is more than there are.",
        "Start chunkservers. Until then writers wait."),
    code("DRAIN_STUCK", "What a chunkserver that is drained has cannot go anywhere.",
        "No other chunkserver that is up has room for it, or each of them has a replica of it already.",
        "Add a chunkserver, or start those that are down; or end it with 'kfs drain --undo SERVER'."),
    code("SERVERS_DOWN", "Chunkservers are not connected, or have only begun to say hello.",
        "They were stopped, have died, or are cut off. After --re-replicate-after (60 s) what they had is copied to others.",
        "Start them, or leave them down for good: 'kfs servers' says when each was last heard of."),
    code("SERVERS_FULL", "Chunkservers have less than a twentieth of their disk left.",
        "Files grow, or something else fills the disk.",
        "Add a server, or remove files; 'kfs df' shows the room."),
    code("UNDER_REPLICATED", "Chunks have fewer replicas that can be read than their files ask for.",
        "Servers are down, replicas were damaged, or a chunk was begun with fewer servers.",
        "Nothing, as a rule: copies are made by themselves, as 'kfs status' shows; of a file that is being written, when it is closed. There must be as many servers as replicas."),
    code("REPLICAS_DAMAGED", "Replicas were reported damaged.",
        "A disk or memory changed bytes, or a replica is not what the log says. They serve nothing, and are made anew from good ones.",
        "Look at the disk of a server that has more than one of them (its page says BLOCKS_BAD)."),
    code("CHUNKS_UNKNOWN", "Chunkservers have chunks that no log of this cluster knows.",
        "The log has lost its end (LOG_TAIL_LOST), or a disk came from elsewhere. They are left alone: nothing unknown is deleted.",
        "See 'kfs explain LOG_TAIL_LOST'."),
    code("NO_ANSWER", "The page of a server got no answer from the server itself.",
        "It is busy for longer than it should be, or it has stopped.",
        "Look at its log; start it again if it does not come back."),
    code("STARTING", "The server reads its data directory.",
        "It has just started.",
        "Nothing: its page and its standard output say how far it is."),
    code("WAITING", "The server waits for something before it can serve.",
        "A chunkserver waits for the meta server; the text says for what.",
        "Start what it waits for, or mend --meta."),
    code("NOT_SERVING", "A chunkserver serves nothing.",
        "The meta server does not answer it, or has not accepted its inventory yet.",
        "See that the meta server runs and that --meta names it."),
    code("CHUNKS_DAMAGED", "Replicas of this chunkserver serve nothing.",
        "They are damaged, unknown to the meta server, or have a header that cannot be read.",
        "They are made anew elsewhere or here; look at this disk if there are more of them."),
    code("BLOCKS_BAD", "Blocks on this chunkserver's disk did not match their sums.",
        "The disk rots, or memory flipped bits. Each was reported, and its replica is made anew.",
        "Look at the disk; replace it if there are more of them. It is said until the next start."),
    code("PIECES_BAD", "Pieces of files came to this chunkserver that did not match their sums.",
        "The network, or memory of this or another machine, flipped bits. They were not written.",
        "Look at the network cards and memory of the machines between."),
    code("RANGES_BAD", "Ranges of copies came to this chunkserver that did not match their sums.",
        "The network, or memory of this or another machine, flipped bits. They were not written.",
        "Look at the network cards and memory of the machines between."),
];

/// The code that is meant: `KFS-E021`, `E021` or `21`, `servers_down`, in letters of any case.
pub(crate) fn find(asked: &str) -> Option<&'static Meaning> {
    let asked = asked.to_uppercase();
    let number = asked.strip_prefix("KFS-").unwrap_or(&asked);
    let number = number.strip_prefix('E').unwrap_or(number);
    let number = number.parse::<u16>().map(|n| format!("KFS-E{n:03}"));
    CODES
        .iter()
        .find(|meaning| meaning.code == asked || number.as_deref() == Ok(meaning.code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    fn of_table() -> BTreeSet<String> {
        CODES.iter().map(|meaning| meaning.code.into()).collect()
    }

    /// All sources and pages below a directory of the project.
    fn texts(below: &str) -> Vec<(String, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut pending = vec![root.join(below)];
        let mut texts = Vec::new();
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                let entries = fs::read_dir(&path).unwrap();
                pending.extend(entries.map(|entry| entry.unwrap().path()));
            } else if let Ok(text) = fs::read_to_string(&path) {
                texts.push((path.display().to_string(), text));
            }
        }
        assert!(!texts.is_empty(), "{below}");
        texts
    }

    #[test]
    fn every_status_and_every_code_of_a_server_is_explained_and_no_other() {
        let mut said: BTreeSet<String> = kfs_core::wire::Status::ALL
            .iter()
            .map(|status| status.code())
            .collect();
        let (_, servers) = texts("kfs-server/src/error.rs").remove(0);
        let body = servers.split("pub enum Code {").nth(1).unwrap();
        let body = body.split('}').next().unwrap();
        for line in body
            .lines()
            .filter_map(|line| line.trim().split_once(" = "))
        {
            let number: u16 = line.1.trim_end_matches(',').parse().unwrap();
            said.insert(format!("KFS-E{number:03}"));
        }
        let errors = of_table()
            .into_iter()
            .filter(|code| code.starts_with("KFS-E"));
        assert_eq!(errors.collect::<BTreeSet<_>>(), said);
    }

    #[test]
    fn every_reason_of_a_health_is_explained_and_no_other() {
        let mut said = BTreeSet::new();
        let servers = texts("kfs-server/src");
        for (_, text) in servers.iter().chain(&texts("kfs-core/src/health.rs")) {
            // What help calls the values of flags is no reason.
            let lines = shipped(text)
                .lines()
                .filter(|line| !line.contains("value_name"));
            for line in lines {
                let literals = line.split('"').skip(1).step_by(2);
                said.extend(literals.filter(|text| is_reason(text)).map(str::to_owned));
            }
        }
        let reasons = of_table()
            .into_iter()
            .filter(|code| !code.starts_with("KFS-E"));
        assert_eq!(reasons.collect::<BTreeSet<_>>(), said);
    }

    /// In capitals, and neither a level nor a variable of the environment.
    fn is_reason(text: &str) -> bool {
        let others = ["HEALTH_", "CARGO_", "KFS_", "RUST_"];
        text.len() > 5
            && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
            && !others.iter().any(|begin| text.starts_with(begin))
    }

    /// A source without its tests.
    fn shipped(text: &str) -> &str {
        text.split("#[cfg(test)]").next().unwrap()
    }

    #[test]
    fn every_code_that_a_source_or_a_page_names_is_explained() {
        let (table, mut named) = (of_table(), 0);
        for below in [
            "kfs-core/src",
            "kfs-server/src",
            "kfs-client/src",
            "docs",
            "README.md",
        ] {
            for (path, text) in texts(below) {
                let text = shipped(&text);
                for (at, _) in text.match_indices("KFS-E") {
                    let code: String = text[at..].chars().take(8).collect();
                    if code[5..].bytes().all(|digit| digit.is_ascii_digit()) {
                        assert!(table.contains(&code), "{path} names {code}");
                        named += 1;
                    }
                }
            }
        }
        assert!(named > 50, "{named}");
    }

    #[test]
    fn a_code_is_found_however_it_is_written_and_each_has_one_meaning() {
        for asked in ["KFS-E021", "kfs-e021", "E021", "e21", "21", "021"] {
            assert_eq!(find(asked).map(|m| m.code), Some("KFS-E021"), "{asked}");
        }
        assert_eq!(find("servers_down").map(|m| m.code), Some("SERVERS_DOWN"));
        for asked in ["", "E", "KFS-E999", "KFS", "99999999", "SERVERS"] {
            assert_eq!(find(asked), None, "{asked}");
        }
        assert_eq!(of_table().len(), CODES.len());
        for meaning in CODES {
            for text in [meaning.what, meaning.why, meaning.remedy] {
                assert!(
                    text.ends_with('.') && text.len() > 8,
                    "{}: {text}",
                    meaning.code
                );
            }
        }
    }
}
