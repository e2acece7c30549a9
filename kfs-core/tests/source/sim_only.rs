//! What exists in the simulator's build only: the marks, names and texts of planted mistakes, probes and
//! pushed places, as the source has them; and which of them a binary holds.
//!
//! Shared by the tests of what ships, where none may be found, and of the simulator, where all must be.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The tables, and the macro that each is written in.
const TABLES: [(&str, &str); 3] = [
    ("planted", "bugs! {"),
    ("probe", "probes! {"),
    ("buggify", "sites! {"),
];
/// Shorter texts say nothing: any binary may hold them.
const TEXT_BYTES_MIN: usize = 8;

/// Every text of the three tables, and the mark of each.
pub(crate) fn texts() -> Vec<String> {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kfs-core/src");
    let mut texts = Vec::new();
    for (file, table) in TABLES {
        let source = std::fs::read_to_string(core.join(format!("{file}.rs"))).expect("the source");
        let begin = source.find(table).expect("the table");
        let end = begin + source[begin..].find("\n}\n").expect("its end");
        let before = texts.len();
        for line in source[begin..end].lines() {
            if !line.trim_start().starts_with("//") {
                texts.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
        assert!(texts.len() >= before + 20, "{file}: the table was read");
        texts.push(format!("KFS-SIM-ONLY {file}"));
        assert!(
            source.contains(texts.last().expect("just pushed")),
            "{file} has its mark"
        );
    }
    texts.retain(|text| text.len() >= TEXT_BYTES_MIN);
    texts
}

/// Those of the texts that a file holds.
///
/// Looks at every fourth place only: each text is long enough to cover one, and has four ways to do so. The
/// binaries of a debug build are large.
pub(crate) fn held(file: &Path, texts: &[String]) -> Vec<String> {
    let bytes = std::fs::read(file).expect("the binary was built for this test");
    assert!(bytes.len() > 100_000, "a whole binary");
    let quad = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    let hash = |quad: [u8; 4]| (u32::from_le_bytes(quad).wrapping_mul(0x9E37_79B1) >> 16) as usize;
    let mut seen = vec![false; 1 << 16];
    let mut begins: BTreeMap<[u8; 4], Vec<(&String, usize)>> = BTreeMap::new();
    for text in texts {
        for from in 0..4 {
            let quad = text.as_bytes()[from..from + 4]
                .try_into()
                .expect("four bytes");
            seen[hash(quad)] = true;
            begins.entry(quad).or_default().push((text, from));
        }
    }
    let mut held = BTreeSet::new();
    let mut at = 0;
    while at + 4 <= bytes.len() {
        if seen[hash(quad(at))] {
            for (text, from) in begins.get(&quad(at)).into_iter().flatten() {
                let begin = at.checked_sub(*from);
                if begin.is_some_and(|begin| bytes[begin..].starts_with(text.as_bytes())) {
                    held.insert((*text).clone());
                }
            }
        }
        at += 4;
    }
    held.into_iter().collect()
}
