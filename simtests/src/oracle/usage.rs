//! O1 on what trees take: the rows of a scan, all pages together, are those of the one state that it began in,
//! whatever has changed meanwhile. Counted here anew, name by name, from that state.
use super::Violation;
use kfs_core::ids::{FileId, LinkId};
use kfs_core::limits::HEADER_BYTES;
use kfs_core::meta::state::State;
use kfs_core::wire::client_meta::{At, Attrs, Kind, Usage, UsagePage, UsageRow};
use std::collections::BTreeMap;

/// The scans of one meta server, as they are seen from outside.
#[derive(Clone, Default, Debug)]
pub struct Usages {
    /// As it was when it last wanted nothing more.
    state: Option<State>,
    /// Of which the first page was not given yet, by their requests.
    begun: BTreeMap<(LinkId, u64), Scan>,
    /// Those with more pages, by what the first one called them.
    going: BTreeMap<(LinkId, u64), Scan>,
}

#[derive(Clone, Debug)]
struct Scan {
    at: At,
    depth: u32,
    state: State,
    rows: Vec<UsageRow>,
}

impl Usages {
    /// The machine wants nothing more in this state.
    pub fn rests(&mut self, state: &State) {
        if self.state.as_ref().map(State::seq) != Some(state.seq()) {
            self.state = Some(state.clone());
        }
    }
    /// A link is gone.
    pub fn closed(&mut self, link: LinkId) {
        self.begun.retain(|(of, _), _| *of != link);
        self.going.retain(|(of, _), _| *of != link);
    }
    /// A scan is asked for.
    pub fn asked(&mut self, request: (LinkId, u64), at: &At, depth: u32) {
        if let Some(state) = &self.state {
            let scan = Scan {
                at: at.clone(),
                depth,
                state: state.clone(),
                rows: Vec::new(),
            };
            self.begun.insert(request, scan);
        }
    }
    /// A page is given.
    ///
    /// # Errors
    /// If it is the last one, and all of them together are not what the state gives.
    pub fn answered(&mut self, request: (LinkId, u64), page: &UsagePage) -> Result<(), Violation> {
        let key = (request.0, page.scan);
        let scan = self.begun.remove(&request);
        let Some(mut scan) = scan.or_else(|| self.going.remove(&key)) else {
            return Ok(());
        };
        scan.rows.extend(page.rows.iter().cloned());
        if page.end {
            return scan.check(page);
        }
        self.going.insert(key, scan);
        Ok(())
    }
}

impl Scan {
    fn check(&self, page: &UsagePage) -> Result<(), Violation> {
        // What came with the request may have changed something before it.
        if page.at != self.state.seq() {
            return Ok(());
        }
        let due = match self.state.stat(&self.at) {
            Ok(attrs) => rows(&self.state, attrs, self.depth),
            Err(_) => Vec::new(),
        };
        let differ =
            (0..due.len().max(self.rows.len())).find(|nth| due.get(*nth) != self.rows.get(*nth));
        let Some(nth) = differ else {
            return Ok(());
        };
        Err(Violation::new(
            "O1",
            "N1",
            format!(
                "state {}, what {:?} takes: row {nth} is {:?}; due was {:?}",
                page.at,
                self.at,
                self.rows.get(nth),
                due.get(nth)
            ),
        ))
    }
}

/// The rows that a scan of this state must give.
fn rows(state: &State, from: Attrs, depth: u32) -> Vec<UsageRow> {
    let mut chunks: BTreeMap<FileId, Usage> = BTreeMap::new();
    for owned in state.chunks() {
        let of = chunks.entry(owned.file).or_default();
        of.chunks += 1;
        of.replica_bytes += (HEADER_BYTES + owned.log.len) * owned.members.len() as u64;
    }
    let mut rows = Vec::new();
    let all = below(state, &chunks, from, depth, &mut rows);
    rows.push(UsageRow::Leaves(all));
    rows
}

fn below(
    state: &State,
    chunks: &BTreeMap<FileId, Usage>,
    of: Attrs,
    depth: u32,
    rows: &mut Vec<UsageRow>,
) -> Usage {
    if of.kind == Kind::File {
        let mut sum = chunks.get(&of.file).copied().unwrap_or_default();
        (sum.bytes, sum.files) = (of.size, 1);
        return sum;
    }
    let mut sum = Usage {
        directories: 1,
        ..Usage::default()
    };
    for (name, file) in state.entries(of.file) {
        let Some(attrs) = state.attrs(file) else {
            continue;
        };
        let has_row = attrs.kind == Kind::Directory && depth > 0;
        if has_row {
            let name = name.as_bytes().to_vec();
            rows.push(UsageRow::Enters { name });
        }
        let more = below(state, chunks, attrs, depth.saturating_sub(1), rows);
        if has_row {
            rows.push(UsageRow::Leaves(more));
        }
        sum.add(&more);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::meta::tests::{begun, created, state};

    #[test]
    fn a_scan_that_saw_what_came_meanwhile_is_seen() {
        let mut records = begun();
        records.extend([created("a", 2), created("b", 3)]);
        let state = state(records);
        let link = LinkId::accepted(1);
        let judged = |files, state: &State| {
            let mut usages = Usages::default();
            usages.rests(state);
            usages.asked((link, 7), &At::root(""), 0);
            let usage = Usage {
                files,
                directories: 1,
                ..Usage::default()
            };
            let page = |rows, end| UsagePage {
                scan: 9,
                at: state.seq(),
                rows,
                end,
            };
            usages.answered((link, 7), &page(vec![], false)).unwrap();
            let last = page(vec![UsageRow::Leaves(usage)], true);
            usages.answered((link, 8), &last)
        };
        judged(2, &state).unwrap();
        assert_eq!(judged(3, &state).unwrap_err().oracle, "O1");
    }
}
