//! One segment of the log from its two copies: batch by batch whichever copy has it, and what is wrong with the other.
//!
//! A function of bytes. Both copies are written with the same batches at the same places, so a batch that is whole
//! and joins on is the right one, whichever copy has it; the chain hash says so. What neither copy has is judged as
//! it is in a log without a mirror: a torn tail if nothing whole is behind it in either of them, else damage.
use super::super::mirror::Side;
use super::super::oplog::{
    BatchHeader, Damage, Found, Joint, Mismatch, PAGE_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader,
    find_batch, padded_bytes,
};
use crate::ids::LogSeq;
use crate::planted::{self, Bug};

const PAGE: usize = SEGMENT_HEADER_BYTES;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// The segment behind one, in either copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Next {
    /// Its first record, as its name says.
    pub(super) first: LogSeq,
    /// Where it joins on; `None` if no copy of its header can be read.
    pub(super) chain: Option<u64>,
}

/// A copy of a segment.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) file: String,
    pub(super) bytes: Vec<u8>,
    /// Its header; or what is wrong with it.
    pub(super) header: Result<SegmentHeader, Mismatch>,
    /// Whether there are segments behind it on the same side.
    pub(super) goes_on: bool,
}

/// What is known of where a segment stands in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its first record.
    pub(super) first: LogSeq,
    /// The chain hash of what is before it; `None`: a checkpoint stands for that.
    pub(super) chain: Option<u64>,
    /// The segment behind it.
    pub(super) next: Option<Next>,
    /// Whether the mirror is known to have missed a run of the server.
    pub(super) mirror_missed: bool,
}

/// A segment as it is to be.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    /// Its header and its batches, to the end of the last one.
    pub(super) bytes: Vec<u8>,
    /// Where they come from, one behind the other.
    pub(super) parts: Vec<Part>,
    /// What each copy is, measured by that.
    pub(super) standing: [Standing; 2],
    /// What of a write that was cut stands behind the last batch, in one of the copies.
    pub(super) torn: Option<Damage>,
}

/// A part of a file that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) side: Side,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What a copy is, measured by the segment as it is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It has all of it.
    Same,
    /// It is not there.
    Missing,
    /// It ends before, in zeros: it was not written any more, or was set back.
    Behind,
    /// Something of it is bad. What it was is kept aside if anything in it is of use.
    Damaged(Damage, Aside),
    /// It ends with something that was never acknowledged, and that the log has gone on without.
    Beyond(Damage),
}

/// Whether a damaged file is kept beside the one that takes its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aside {
    Kept,
    /// Of what was cut, nothing is of use.
    Dropped,
}

/// Why no log can be made of the copies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Conflict {
    /// Neither has what must be there.
    Both(Box<[Damage; 2]>),
    /// They are of two histories; this is where the mirror, or the log, goes another way.
    Diverged(Damage),
}

/// Makes one segment of what the copies have.
pub(super) fn merge(place: Place, mut copies: [Option<Copy>; 2]) -> Result<Merged, Conflict> {
    let mut standing = [Standing::Same, Standing::Same];
    for side in Side::BOTH {
        if copies[side as usize].is_none() {
            standing[side as usize] = Standing::Missing;
        }
    }
    let header = header(place, &mut copies, &mut standing)?;
    let mut bad: [Option<Damage>; 2] = [None, None];
    let (mut parts, mut at) = (Vec::new(), PAGE);
    for side in Side::BOTH {
        let Some(copy) = &copies[side as usize] else {
            continue;
        };
        match &copy.header {
            Ok(_) => take(&mut parts, side, 0, PAGE),
            Err(mismatch) => {
                let damage = damage(&copy.file, 0, mismatch.clone());
                standing[side as usize] = Standing::Damaged(damage, Aside::Kept);
            }
        }
    }
    let mut joint = Joint {
        seq: header.first,
        chain: header.chain,
    };
    let salt = header.salt;
    let ends_here = |joint: Joint| {
        place.next.is_some_and(|next| {
            next.first == joint.seq && next.chain.is_none_or(|chain| chain == joint.chain)
        })
    };
    loop {
        if ends_here(joint) && place.next.is_some_and(|next| next.chain.is_some()) {
            beyond(&copies, at, salt, joint, &mut standing)?;
            break;
        }
        let found = Side::BOTH.map(|side| {
            let copy = copies[side as usize].as_ref()?;
            Some(expected(&copy.bytes, at, salt, joint))
        });
        let whole = found
            .each_ref()
            .map(|found| found.as_ref().and_then(|found| found.as_ref().ok()));
        if let [Some(log), Some(mirror)] = whole
            && log != mirror
        {
            let file = &copies[Side::Mirror as usize]
                .as_ref()
                .expect("it has one")
                .file;
            let mismatch = Mismatch::new(
                format!(
                    "the batch of the log, with its payload CRC 0x{:08X}",
                    log.payload_crc
                ),
                format!("another whole one, 0x{:08X}", mirror.payload_crc),
            );
            return Err(Conflict::Diverged(damage(file, at, mismatch)));
        }
        let side = match whole {
            [None, Some(_)] if place.next.is_none() && planted::is(Bug::MirrorUnread) => None,
            [Some(_), _] => Some(Side::Primary),
            [None, Some(_)] => Some(Side::Mirror),
            [None, None] => None,
        };
        let Some(side) = side else {
            end(place, &copies, (at, salt, joint), ends_here(joint), &found)?;
            break;
        };
        let batch = *whole[side as usize].expect("it was just found there");
        let other = side.other();
        match (&found[other as usize], &copies[other as usize]) {
            (Some(Err(mismatch)), Some(copy)) if bad[other as usize].is_none() => {
                bad[other as usize] = Some(damage(&copy.file, at, mismatch.clone()));
            }
            _ => {}
        }
        let len =
            usize::try_from(padded_bytes(batch.payload_bytes as usize)).expect("it lies in memory");
        take(&mut parts, side, at, at + len);
        at += len;
        joint.seq.0 += u64::from(batch.count);
        joint.chain = batch.chain_after(salt);
    }
    for side in Side::BOTH {
        let (Some(copy), Some(damage)) = (&copies[side as usize], bad[side as usize].take()) else {
            continue;
        };
        if standing[side as usize] == Standing::Same {
            standing[side as usize] = judged(copy, damage, salt);
        }
    }
    let torn = copies.iter().flatten().find_map(|copy| {
        let rest = copy.bytes.get(at..).unwrap_or_default();
        let dirty = rest.iter().any(|byte| *byte != 0);
        let mismatch = expected(&copy.bytes, at, salt, joint).err();
        mismatch
            .filter(|_| dirty)
            .map(|mismatch| damage(&copy.file, at, mismatch))
    });
    Ok(Merged {
        bytes: gathered(&parts, copies),
        parts,
        standing,
        torn,
    })
}

/// The header that counts. A mirror with another one is left out if nothing in it was acknowledged.
fn header(
    place: Place,
    copies: &mut [Option<Copy>; 2],
    standing: &mut [Standing; 2],
) -> Result<SegmentHeader, Conflict> {
    for copy in copies.iter_mut().flatten() {
        copy.header = core::mem::replace(&mut copy.header, Err(Mismatch::new("", "")))
            .and_then(|header| joins(place, header));
    }
    let whole = copies.each_ref().map(|copy| {
        copy.as_ref()
            .and_then(|copy| copy.header.as_ref().ok())
            .copied()
    });
    let both = || {
        Conflict::Both(Box::new(
            Side::BOTH.map(|side| header_damage(side, place, copies)),
        ))
    };
    match whole {
        [Some(log), Some(mirror)] if log != mirror => {
            let copy = copies[Side::Mirror as usize]
                .take()
                .expect("it has a header");
            let mismatch = Mismatch::new(
                format!(
                    "the header of the log's segment, opened in epoch {}",
                    log.epoch
                ),
                format!("another one, of epoch {}", mirror.epoch),
            );
            let damage = damage(&copy.file, 0, mismatch);
            if copy.goes_on || whole_batches(&copy.bytes, PAGE, mirror.salt) > 1 {
                return Err(Conflict::Diverged(damage));
            }
            standing[Side::Mirror as usize] = Standing::Beyond(damage);
            Ok(log)
        }
        [Some(header), _] => Ok(header),
        [None, Some(header)] => {
            // The mirror's header stands for both only if the log's file is a copy of the same segment. Nothing
            // says so if that has bytes and none of its batches, or if the mirror may be of an older run.
            let same = |copy: &Copy| {
                whole_batches(&copy.bytes, PAGE, header.salt) > 0
                    || (copy.bytes.iter().skip(PAGE).all(|byte| *byte == 0)
                        && (place.next.is_some() || !place.mirror_missed))
            };
            let confirmed = copies[Side::Primary as usize].as_ref().is_none_or(same);
            if confirmed { Ok(header) } else { Err(both()) }
        }
        [None, None] => Err(both()),
    }
}

/// Whether a header is of the segment that belongs here.
fn joins(place: Place, header: SegmentHeader) -> Result<SegmentHeader, Mismatch> {
    let chain = place.chain.unwrap_or(header.chain);
    if (header.first, header.chain) == (place.first, chain) {
        return Ok(header);
    }
    Err(Mismatch::new(
        format!(
            "a segment that begins with record {} after the hash 0x{chain:016X}",
            place.first
        ),
        format!(
            "one that begins with record {} after the hash 0x{:016X}",
            header.first, header.chain
        ),
    ))
}

fn header_damage(side: Side, place: Place, copies: &[Option<Copy>; 2]) -> Damage {
    match &copies[side as usize] {
        Some(copy) => {
            let mismatch = match &copy.header {
                Err(mismatch) => mismatch.clone(),
                Ok(_) => Mismatch::new(
                    "the other copy to be of the same segment",
                    "nothing in it that says so",
                ),
            };
            damage(&copy.file, 0, mismatch)
        }
        None => missing(side, place, 0),
    }
}

fn missing(side: Side, place: Place, at: usize) -> Damage {
    let file =
        super::super::commit::log_file(side, &super::super::oplog::segment_name(place.first));
    damage(file.as_str(), at, Mismatch::new("a segment", "no file"))
}

/// The segment ends where the next one begins. What a copy has behind that is nothing that was acknowledged, or
/// another history.
fn beyond(
    copies: &[Option<Copy>; 2],
    at: usize,
    salt: u64,
    joint: Joint,
    standing: &mut [Standing; 2],
) -> Result<(), Conflict> {
    for side in Side::BOTH {
        let Some(copy) = &copies[side as usize] else {
            continue;
        };
        let Ok(batch) = expected(&copy.bytes, at, salt, joint) else {
            continue;
        };
        let mismatch = Mismatch::new(
            format!("the end of the segment before record {}", joint.seq),
            format!("a whole batch of {} records", batch.count),
        );
        let damage = damage(&copy.file, at, mismatch);
        // One batch is in flight at a time: a second one would prove that the first was acknowledged.
        let proven = whole_batches(&copy.bytes, at, salt) > 1 || copy.goes_on;
        if side == Side::Primary || proven {
            return Err(Conflict::Diverged(damage));
        }
        standing[side as usize] = Standing::Beyond(damage);
    }
    Ok(())
}

/// Neither copy has the next batch: whether that is the end.
fn end(
    place: Place,
    copies: &[Option<Copy>; 2],
    (at, salt, joint): (usize, u64, Joint),
    ends_here: bool,
    found: &[Option<Result<BatchHeader, Mismatch>>; 2],
) -> Result<(), Conflict> {
    let later = copies
        .iter()
        .flatten()
        .find_map(|copy| Some((&copy.file, first_whole(&copy.bytes, at, salt)?)));
    let proof = match (place.next, later) {
        (Some(next), _) if !ends_here => format!(
            ", while the log goes on with record {} in the segment after it",
            next.first
        ),
        (None, Some((file, offset)))
            if !planted::is(Bug::DamagePassesForTorn) && !planted::is(Bug::MirrorUnread) =>
        {
            format!(", and a whole batch after it at offset {offset} of {file}")
        }
        _ => return Ok(()),
    };
    Err(Conflict::Both(Box::new(Side::BOTH.map(|side| {
        let copy = &copies[side as usize];
        match (copy, &found[side as usize]) {
            (Some(copy), Some(Err(mismatch))) => {
                let mut mismatch = mismatch.clone();
                mismatch.found += &proof;
                damage(&copy.file, at, mismatch)
            }
            _ => {
                let mut damage = missing(side, place, at);
                damage.mismatch = Mismatch::new(
                    format!("the batch that begins with record {}", joint.seq),
                    format!("no copy of it{proof}"),
                );
                damage
            }
        }
    }))))
}

/// What a copy is that does not have a batch that the other one has.
fn judged(copy: &Copy, damage: Damage, salt: u64) -> Standing {
    let from = usize::try_from(damage.offset).expect("it lies in memory");
    let rest = copy.bytes.get(from..).unwrap_or_default();
    if copy.goes_on || first_whole(&copy.bytes, from, salt).is_some() {
        Standing::Damaged(damage, Aside::Kept)
    } else if rest.iter().all(|byte| *byte == 0) {
        Standing::Behind
    } else {
        Standing::Damaged(damage, Aside::Dropped)
    }
}

/// The batch that has to be at this place.
fn expected(bytes: &[u8], at: usize, salt: u64, joint: Joint) -> Result<BatchHeader, Mismatch> {
    let rest = bytes.get(at..).unwrap_or_default();
    let begins = || format!("the batch that begins with record {}", joint.seq);
    match find_batch(rest, salt) {
        Found::Batch { header, .. } => {
            let due = (header.first, header.chain) == (joint.seq, joint.chain);
            if due && header.durable < joint.seq {
                return Ok(header);
            }
            Err(Mismatch::new(
                format!("{} after the hash 0x{:016X}", begins(), joint.chain),
                format!(
                    "one that begins with record {} after the hash 0x{:016X}, formed when record {} was durable",
                    header.first, header.chain, header.durable
                ),
            ))
        }
        Found::Short(_) => {
            let found = format!("the end of the file after {} bytes", rest.len());
            Err(Mismatch::new(begins(), found))
        }
        Found::Bad(found) => Err(Mismatch::new(begins(), found)),
    }
}

/// The first place from here on where a whole batch of this segment stands.
fn first_whole(bytes: &[u8], from: usize, salt: u64) -> Option<usize> {
    let whole = |at: &usize| matches!(find_batch(&bytes[*at..], salt), Found::Batch { .. });
    (from..bytes.len()).step_by(PAGE).find(whole)
}

/// How many whole batches of this segment stand from here on.
fn whole_batches(bytes: &[u8], from: usize, salt: u64) -> usize {
    let (mut at, mut count) = (from, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        at += match find_batch(rest, salt) {
            Found::Batch { padded, .. } => {
                count += 1;
                padded
            }
            Found::Short(_) | Found::Bad(_) => PAGE,
        };
    }
    count
}

/// Takes a part of a copy, unless the part before has it.
fn take(parts: &mut Vec<Part>, side: Side, from: usize, to: usize) {
    let (from, to) = (from as u64, to as u64);
    match parts.last_mut() {
        Some(last) if last.to >= to => {}
        Some(last) if last.side == side && last.to == from => last.to = to,
        _ => parts.push(Part { side, from, to }),
    }
}

/// The bytes of these parts.
fn gathered(parts: &[Part], mut copies: [Option<Copy>; 2]) -> Vec<u8> {
    let range = |part: &Part| {
        let at = |offset: u64| usize::try_from(offset).expect("it lies in memory");
        at(part.from)..at(part.to)
    };
    if let [part] = parts {
        let copy = copies[part.side as usize].take();
        let mut bytes = copy.expect("a part is of a copy that is there").bytes;
        bytes.truncate(range(part).end);
        return bytes;
    }
    let mut bytes = Vec::new();
    for part in parts {
        let copy = copies[part.side as usize].as_ref();
        bytes.extend_from_slice(&copy.expect("as above").bytes[range(part)]);
    }
    bytes
}

fn damage(file: &str, at: usize, mismatch: Mismatch) -> Damage {
    Damage {
        file: file.to_owned(),
        offset: at as u64,
        mismatch,
    }
}
