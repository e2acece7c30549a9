//! The pages in `docs/formats/` and the code say the same: numbers, offsets, bounds, fields.
//!
//! `KFS_GOLDEN=add` (or `rewrite`) writes the field list of `wire.md` anew from the source; all else on the
//! pages is written by hand and only checked.
#[allow(dead_code, reason = "what looks at paths serves tidy.rs")]
mod source;

use bytes::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use kfs_core::block::crc;
use kfs_core::identity::{self, Identity, Owner};
use kfs_core::ids::*;
use kfs_core::limits::{FRAME_BODY_MAX, FRAME_HEAD_MAX, Limits};
use kfs_core::machine::{DiskDone, Input, Output};
use kfs_core::meta::checkpoint::format::{self as checkpoint, BlockHeader, Header};
use kfs_core::meta::checkpoint::{END, Section};
use kfs_core::time::{Instant, Now, UnixNanos};
use kfs_core::trace::{self, EntryKind, EventHash, Recorder};
use kfs_core::wire::client_meta::Renew;
use kfs_core::wire::frame::{HEAD_CRC_BYTES, MAGIC, PREFIX_BYTES, encode};
use kfs_core::wire::{Head, Msg, PROTOCOL_MAX, PROTOCOL_MIN};
use source::{root, sources, tokens};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn page_path(name: &str) -> PathBuf {
    root().join("docs/formats").join(name)
}
fn page(name: &str) -> String {
    std::fs::read_to_string(page_path(name)).expect("the page is in the repository")
}

/// The rows of the tables below a heading, as cells.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, after) = page
        .split_once(heading)
        .unwrap_or_else(|| panic!("the page has '{heading}'"));
    let section = after
        .split("\n## ")
        .next()
        .expect("a split has a first part");
    let lines = section
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("| ---"));
    lines
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

/// Fields of a layout table: the offset of each, by the beginning of what it says, and their sizes.
fn layout(page: &str, heading: &str) -> Vec<(usize, usize, String)> {
    rows(page, heading)
        .into_iter()
        .filter_map(|cells| {
            Some((
                cells.first()?.parse().ok()?,
                cells.get(1)?.parse().ok()?,
                cells.get(2)?.clone(),
            ))
        })
        .collect()
}

/// The bytes at the offset that the page gives a field.
fn field<'a>(layout: &[(usize, usize, String)], bytes: &'a [u8], name: &str) -> &'a [u8] {
    let mut named = layout.iter().filter(|(_, _, what)| what.starts_with(name));
    let (at, size, _) = named
        .next()
        .unwrap_or_else(|| panic!("the page has a field '{name}'"));
    assert!(named.next().is_none(), "'{name}' names one field");
    &bytes[*at..at + size]
}

fn assert_no_gaps(layout: &[(usize, usize, String)], end: usize) {
    let mut at = 0;
    for (offset, size, what) in layout {
        assert_eq!(
            *offset, at,
            "'{what}' begins where the field before it ends"
        );
        at += size;
    }
    assert_eq!(at, end, "the fields fill what they lay out");
}

#[test]
fn the_page_lays_a_frame_out_as_it_is_written() {
    let layout = layout(&page("wire.md"), "## Frame");
    assert_no_gaps(&layout, PREFIX_BYTES);
    let request = 0x0102_0304_0506_0708;
    let msg = Msg::with_body(
        request,
        Renew {
            session: SessionId(1),
        },
        Bytes::from_static(b"a body"),
    );
    let bytes = encode(9, &msg);
    let at = |name: &str| field(&layout, &bytes, name);
    assert_eq!(at("magic"), MAGIC.to_le_bytes());
    assert!(
        page("wire.md").contains(&format!("0x{MAGIC:08X}")),
        "the page names the magic"
    );
    assert_eq!(at("protocol"), [9]);
    assert_eq!(at("flags"), [0]);
    assert_eq!(at("message type"), msg.head.code().to_le_bytes());
    assert_eq!(at("request id"), request.to_le_bytes());
    assert_eq!(
        at("head length"),
        u32::try_from(bytes.len() - PREFIX_BYTES)
            .unwrap()
            .to_le_bytes()
    );
    assert_eq!(at("body length"), 6_u32.to_le_bytes());
    assert_eq!(at("CRC"), crc(&bytes[..24]).to_le_bytes());
    assert_eq!(
        bytes[bytes.len() - 4..],
        crc(&bytes[PREFIX_BYTES..bytes.len() - 4]).to_le_bytes(),
        "a head ends so"
    );
}

#[test]
fn the_page_gives_the_bounds_of_frames() {
    let bounds: BTreeMap<String, String> = rows(&page("wire.md"), "## Frame")
        .into_iter()
        .filter(|row| row.len() == 2)
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    for (name, value) in [
        ("prefix, bytes", PREFIX_BYTES),
        ("CRC at the end of a head, bytes", HEAD_CRC_BYTES),
        ("head at most, bytes", FRAME_HEAD_MAX),
        ("body at most, bytes", FRAME_BODY_MAX),
        ("oldest protocol spoken", usize::from(PROTOCOL_MIN)),
        ("newest protocol spoken", usize::from(PROTOCOL_MAX)),
    ] {
        assert_eq!(bounds.get(name), Some(&value.to_string()), "{name}");
    }
}

#[test]
fn the_page_lists_every_message_by_its_number() {
    let listed: Vec<(String, String)> = rows(&page("wire.md"), "## Messages")
        .into_iter()
        .filter(|row| row[0].starts_with("0x"))
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let spoken: Vec<(String, String)> = Head::TYPES
        .iter()
        .map(|(code, name)| (format!("0x{code:04X}"), (*name).to_owned()))
        .collect();
    assert_eq!(listed, spoken);
    let names: Vec<&str> = Head::TYPES.iter().map(|(_, name)| *name).collect();
    for row in rows(&page("wire.md"), "## Messages")
        .iter()
        .filter(|row| row[0].starts_with("0x"))
    {
        for answer in row[3].split(", ").filter(|answer| !answer.is_empty()) {
            assert!(
                names.contains(&answer),
                "{} is answered by {answer}, which is no message",
                row[1]
            );
        }
    }
}

/// A message's type and all types it is made of, as `struct Name { field: Type, … }` and `enum Name { … }`.
fn fields() -> String {
    let mut lines = vec![];
    let places = [
        "kfs-core/src/wire/mod.rs",
        "kfs-core/src/wire/client_meta.rs",
        "kfs-core/src/wire/chunk_meta.rs",
        "kfs-core/src/wire/client_chunk.rs",
        "kfs-core/src/wire/status.rs",
        "kfs-core/src/block.rs",
        "kfs-core/src/ids.rs",
        "kfs-core/src/limits.rs",
    ];
    let sources = sources(&["kfs-core/src"]);
    for place in places {
        let source = sources
            .iter()
            .find(|source| source.path == place)
            .expect("the file is there");
        let tokens = tokens(&source.code);
        let mut found = vec![];
        for at in 0..tokens.len() {
            if let Some(line) = item(&tokens[at..], &tokens[..at]) {
                found.push(line);
            }
        }
        // Schedules of simulated runs hold limits; no message does.
        found.retain(|line| !line.starts_with("struct Limits "));
        if !found.is_empty() {
            lines.push(format!("# {}", place.trim_start_matches("kfs-core/src/")));
            lines.extend(found);
        }
    }
    lines.join("\n") + "\n"
}

/// The item that these tokens begin with, if it is a type with named parts that travels.
fn item(tokens: &[String], before: &[String]) -> Option<String> {
    let [public, kind, name, open, ..] = tokens else {
        return None;
    };
    if public != "pub" || (kind != "struct" && kind != "enum") || open != "{" {
        return None;
    }
    // Its derives stand between the last item and here.
    let from = before
        .iter()
        .rposition(|token| token == "}" || token == ";")
        .map_or(0, |at| at + 1);
    if !before[from..].iter().any(|token| token == "Serialize") {
        return None;
    }
    let mut depth = 0;
    let body = tokens[3..].iter().take_while(|token| {
        depth += i32::from(*token == "{") - i32::from(*token == "}");
        depth > 0
    });
    // How a part is encoded says nothing of what it is.
    let mut attribute = false;
    let is_said = |token: &&str| {
        attribute |= *token == "#";
        let said = !attribute && *token != "pub";
        attribute &= *token != "]";
        said
    };
    let parts: Vec<&str> = body.skip(1).map(String::as_str).filter(is_said).collect();
    Some(format!("{kind} {name} {{ {} }}", spaced(&parts)))
}

/// Tokens as one line of source.
fn spaced(parts: &[&str]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < parts.len() {
        match parts[at] {
            "," => out.push_str(", "),
            ":" => out.push_str(": "),
            "{" => out.push_str(" { "),
            "}" => out.push_str(" }"),
            // The codes of statuses do not travel.
            "=" => at += 1,
            part => out.push_str(part),
        }
        at += 1;
    }
    out.replace(",  }", " }").trim_end_matches(", ").to_owned()
}

#[test]
fn the_page_lists_the_fields_of_every_message() {
    let (open, close) = ("```text\n", "```\n");
    let page = page("wire.md");
    let (before, rest) = page
        .split_once(open)
        .expect("the page has a block of fields");
    let (listed, after) = rest.split_once(close).expect("the block ends");
    let fields = fields();
    if std::env::var("KFS_GOLDEN").is_ok() {
        std::fs::write(
            page_path("wire.md"),
            format!("{before}{open}{fields}{close}{after}"),
        )
        .expect("the page can be written");
        return;
    }
    assert_eq!(listed, fields, "KFS_GOLDEN=add writes the list anew");
    for (_, name) in Head::TYPES {
        assert!(
            fields.contains(&format!("struct {name} {{")),
            "{name} is listed"
        );
    }
    for line in fields.lines().filter(|line| line.starts_with("struct")) {
        assert!(
            !line.contains("usize"),
            "{line}: a size that differs between machines does not travel"
        );
    }
}

#[test]
fn the_page_lays_an_identity_out_as_it_is_written() {
    let layout: Vec<_> = layout(&page("identity.md"), "# The identity file");
    assert_no_gaps(&layout, identity::FIXED_BYTES);
    let identity = Identity {
        owner: Owner::Chunk,
        cluster: ClusterId(0x11 << 120 | 1),
        node: NodeId(0x22 << 120 | 2),
        disk: DiskId(0x33 << 120 | 3),
        boot: Boot(0x44 << 56 | 4),
        seen: (Epoch(0x55 << 16 | 5), Incarnation(0x66 << 56 | 6)),
        seen_seq: LogSeq(0x77 << 56 | 9),
        siblings: vec![DiskId(7), DiskId(8)],
    };
    let bytes = identity.encode();
    let at = |name: &str| field(&layout, &bytes, name);
    assert_eq!(at("magic"), identity::MAGIC.to_le_bytes());
    assert_eq!(at("magic"), b"KFSIDENT");
    assert_eq!(at("format version: 1"), identity::FORMAT.to_le_bytes());
    assert_eq!(
        at("owner: 1 meta server, 2 chunkserver, 3 mirror of a meta server's log"),
        (Owner::Chunk as u32).to_le_bytes()
    );
    assert_eq!(at("cluster id"), identity.cluster.0.to_le_bytes());
    assert_eq!(at("node id"), identity.node.0.to_le_bytes());
    assert_eq!(at("disk id"), identity.disk.0.to_le_bytes());
    assert_eq!(at("boot"), identity.boot.0.to_le_bytes());
    assert_eq!(at("seen epoch"), identity.seen.0.0.to_le_bytes());
    assert_eq!(at("zero"), [0; 4]);
    assert_eq!(at("seen incarnation"), identity.seen.1.0.to_le_bytes());
    assert_eq!(at("seen record"), identity.seen_seq.0.to_le_bytes());
    assert_eq!(at("count of sibling disks"), 2_u64.to_le_bytes());
    let page = page("identity.md");
    assert!(page.contains(&format!(
        "count of sibling disks, at most {}",
        identity::SIBLINGS_MAX
    )));
    assert!(
        page.contains(&format!("| {} | 16 each |", identity::FIXED_BYTES)),
        "where the siblings begin"
    );
    let end = bytes.len() - 4;
    assert_eq!(
        end,
        identity::FIXED_BYTES + 16 * 2,
        "two siblings and a CRC"
    );
    assert_eq!(bytes[end..], crc(&bytes[..end]).to_le_bytes());
    for name in [identity::NAME, identity::NAME_NEW] {
        assert!(page.contains(&format!("`{name}`")), "the page names {name}");
    }
}

#[test]
fn the_page_lays_a_trace_out_as_it_is_written() {
    let page = page("trace.md");
    let mut bytes = vec![];
    let mut recorder = Recorder::begin(
        kfs_core::client::Config {
            seed: 5,
            limits: Limits::REAL,
            meta: SocketAddr::from(([127, 0, 0, 1], 20_000)),
            timeout: Duration::from_secs(30),
        },
        &mut bytes,
    );
    let header = bytes.clone();
    let layout_of = layout(&page, "## Header");
    assert_no_gaps(&layout_of, trace::HEADER_BYTES);
    let at = |name: &str| field(&layout_of, &header, name);
    let configuration = &header[trace::HEADER_BYTES..header.len() - trace::CRC_BYTES];
    assert_eq!(at("magic"), b"KFSTRACE");
    assert_eq!(at("magic"), trace::MAGIC.to_le_bytes());
    assert_eq!(at("format version: 1"), trace::FORMAT.to_le_bytes());
    assert_eq!(
        at("machine: 1 meta server, 2 chunkserver, 3 client"),
        3_u32.to_le_bytes()
    );
    assert_eq!(
        at("bytes of the configuration, n"),
        u32::try_from(configuration.len())
            .expect("it is short")
            .to_le_bytes()
    );
    assert_eq!(
        at("CRC-32 of bytes 0..19"),
        crc(&header[..20]).to_le_bytes()
    );
    assert_eq!(
        header[header.len() - trace::CRC_BYTES..],
        crc(configuration).to_le_bytes()
    );
    assert!(page.contains(&format!("| {} | n | configuration |", trace::HEADER_BYTES)));
    let build = trace::BUILD.as_bytes();
    assert_eq!(usize::from(configuration[0]), build.len());
    assert_eq!(
        &configuration[1..=build.len()],
        build,
        "the program is first"
    );
    assert_eq!(configuration[build.len() + 1], 5, "the seed is next");

    recorder.output(&Output::<kfs_core::client::Event>::Close { link: LinkId(3) });
    let now = Now {
        mono: Instant(0x0102_0304),
        wall: UnixNanos(0x0506_0708),
    };
    let body = Bytes::from_static(b"bulk");
    let result = Ok(DiskDone::Data(body.clone()));
    let input = Input::<kfs_core::client::Call>::Disk {
        ticket: Ticket(1),
        result,
    };
    let mut entry = vec![];
    recorder.input(now, &input, &mut entry);
    let layout_of = layout(&page, "## Entry");
    // The kinds' table follows in the same section; its rows have no sizes.
    assert_no_gaps(&layout_of, trace::ENTRY_BYTES);
    let at = |name: &str| field(&layout_of, &entry, name);
    let head = [1, 1];
    assert_eq!(entry[trace::ENTRY_BYTES..], [&head[..], &body].concat());
    assert_eq!(at("bytes of the body, b"), 4_u64.to_le_bytes());
    assert_eq!(at("bytes of the head, h"), 2_u32.to_le_bytes());
    assert_eq!(at("kind"), EntryKind::Disk.code().to_le_bytes());
    assert_eq!(at("monotonic clock, ns"), now.mono.0.to_le_bytes());
    assert_eq!(at("wall clock, ns since 1970"), now.wall.0.to_le_bytes());
    // By the words of the page.
    let word = |hash: u64, word: u64| {
        (hash ^ word)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29)
    };
    assert!(page.contains("0x9E3779B97F4A7C15") && page.contains("by 29"));
    assert_eq!(
        at("hash of all outputs before this input"),
        word(word(0, 3), 3).to_le_bytes(),
        "a close is its tag and its link"
    );
    let mut of_bytes = EventHash::default();
    of_bytes.bytes(b"eight or more");
    assert_eq!(
        of_bytes.value(),
        [*b"eight or", *b" more\0\0\0", 13_u64.to_le_bytes()]
            .iter()
            .fold(0, |hash, eight| word(hash, u64::from_le_bytes(*eight)))
    );
    assert_eq!(
        at("CRC-32 of head and body"),
        crc(&entry[trace::ENTRY_BYTES..]).to_le_bytes()
    );
    assert_eq!(at("CRC-32 of bytes 0..43"), crc(&entry[..44]).to_le_bytes());
    let kinds: Vec<_> = rows(&page, "## Entry")
        .into_iter()
        .filter(|cells| cells.len() == 4 && cells[0] != "kind")
        .map(|cells| (cells[0].clone(), cells[1].clone()))
        .collect();
    let all: Vec<_> = EntryKind::ALL
        .iter()
        .map(|kind| (kind.code().to_string(), format!("{kind:?}")))
        .collect();
    assert_eq!(kinds, all, "every kind has a row");
}

#[test]
fn the_page_lays_a_checkpoint_out_as_it_is_written() {
    let page = page("checkpoint.md");
    let header = Header {
        cluster: ClusterId(0x1122_3344),
        epoch: Epoch(7),
        seq: LogSeq(900),
    };
    let bytes = header.encode();
    let fields = layout(&page, "## Header");
    assert_no_gaps(&fields, checkpoint::HEADER_BYTES);
    assert_eq!(field(&fields, &bytes, "magic `KFSCHKPT`"), b"KFSCHKPT");
    let format = checkpoint::FORMAT.to_le_bytes();
    assert_eq!(field(&fields, &bytes, "format version: 1"), format);
    assert_eq!(field(&fields, &bytes, "newest epoch"), 7_u32.to_le_bytes());
    let cluster = 0x1122_3344_u128.to_le_bytes();
    assert_eq!(field(&fields, &bytes, "cluster id"), cluster);
    assert_eq!(field(&fields, &bytes, "seq"), 900_u64.to_le_bytes());
    let sum = crc(&bytes[..checkpoint::HEADER_CRC_AT]).to_le_bytes();
    assert_eq!(field(&fields, &bytes, "CRC-32 of bytes 0..4091"), sum);

    let block = BlockHeader {
        section: 5,
        number: 6,
        entries: 7,
        payload_bytes: 8,
        payload_crc: 9,
        before: header.hash(),
    };
    let bytes = block.encode();
    let fields = layout(&page, "## Block");
    assert_no_gaps(&fields, checkpoint::BLOCK_HEADER_BYTES);
    assert_eq!(field(&fields, &bytes, "magic `KFSB`"), b"KFSB");
    assert_eq!(field(&fields, &bytes, "section"), 5_u16.to_le_bytes());
    assert_eq!(field(&fields, &bytes, "number of the"), 6_u32.to_le_bytes());
    assert_eq!(field(&fields, &bytes, "count of"), 7_u32.to_le_bytes());
    assert_eq!(field(&fields, &bytes, "bytes of"), 8_u32.to_le_bytes());
    assert_eq!(
        field(&fields, &bytes, "CRC-32 of the entries"),
        9_u32.to_le_bytes()
    );
    let before = header.hash().to_le_bytes();
    assert_eq!(field(&fields, &bytes, "hash of all"), before);
    let sum = crc(&bytes[..checkpoint::BLOCK_CRC_AT]).to_le_bytes();
    assert_eq!(field(&fields, &bytes, "CRC-32 of bytes 0..31"), sum);
    for bound in ["65,536", "1,048,576"] {
        assert!(page.contains(bound));
    }
    let bounds = (checkpoint::BLOCK_PAYLOAD_DUE, checkpoint::BLOCK_PAYLOAD_MAX);
    assert_eq!(bounds, (65_536, 1_048_576));

    let mut sections: Vec<(u16, String)> = Vec::new();
    for cells in rows(&page, "## Sections") {
        if let Ok(code) = cells[0].parse() {
            sections.push((code, cells[1].clone()));
        }
    }
    let table = Section::TABLE.iter();
    let mut known: Vec<_> = table
        .map(|(code, name)| (*code, (*name).to_owned()))
        .collect();
    known.push((END, "End".into()));
    assert_eq!(sections, known);
}
