//! Identities: every number that names something has a type of its own.
//!
//! File ids, chunk ids, versions and session ids are issued by the meta server as (epoch, counter)
//! packed into 63 bits, so no id is ever issued twice, also after a restore from an old backup.
use core::fmt;
use serde::{Deserialize, Serialize};

/// Bits of an issued id that hold the counter; the epoch stands above them.
pub const COUNTER_BITS: u32 = 40;
/// Every id is below this.
pub const ID_LIMIT: u64 = 1 << 63;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);
        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}
macro_rules! issued {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        number!($(#[$doc])* $name);
        impl $name {
            /// The id with this counter, issued in this epoch.
            #[must_use]
            pub fn issued(epoch: Epoch, counter: u64) -> Self {
                Self(pack(epoch, counter))
            }
            /// The epoch it was issued in.
            #[must_use]
            pub fn epoch(self) -> Epoch {
                Epoch((self.0 >> COUNTER_BITS) as u32)
            }
            /// Its counter within the epoch.
            #[must_use]
            pub const fn counter(self) -> u64 {
                self.0 & ((1 << COUNTER_BITS) - 1)
            }
        }
    )+};
}

issued!(
    /// A file or a directory. The root is [`FileId::ROOT`].
    FileId,
    /// A chunk: up to 64 MiB of one file.
    ChunkId,
    /// A version of a chunk; only the order matters.
    Version,
    /// A client's session, the scope of exactly-once retries.
    SessionId,
);
number!(
    /// Position of a record in the operation log; the one order of the namespace. The first record is 1.
    LogSeq
);
number!(
    /// A mutation within its session, from 1; never reused.
    RequestNumber
);
number!(
    /// A write within (session, chunk, version), from 1, in order.
    PieceNumber
);
number!(
    /// Which chain of a chunk's version a message is of. The first one's is 0; each later one draws its own, so a
    /// message of an earlier chain that is late is none of a later one.
    ChainId
);
number!(
    /// A write within a chunk, from 1, given by the head of its chain; every replica applies them in order.
    WriteSeq
);
number!(
    /// A chunkserver's place in the roster, given by the log when it first joins; never reused.
    ServerIndex
);
number!(
    /// A connection of one process. Links that a machine dials are even, links it accepted are odd.
    LinkId
);
number!(
    /// One disk operation of one machine; exactly one completion comes back for it.
    Ticket
);
number!(
    /// One call from the process around the machine (the library, the admin page).
    CallId
);
number!(
    /// The random number of one start of a meta server: tells two histories with the same epoch apart.
    Incarnation
);
number!(
    /// How often a chunkserver has started on its data directories; raised durably before anything else.
    Boot
);
number!(
    /// A random number of one process, so that a reconnect is told from a cloned disk with the same boot.
    Instance
);

number!(
    /// What a chunk at rest holds, in 64 bits: its last write, its length, and the sums of its blocks.
    Digest
);

impl FileId {
    /// The root directory.
    pub const ROOT: Self = Self(2);
}
impl LinkId {
    /// The n-th link that the machine itself dialed.
    #[must_use]
    pub const fn dialed(n: u64) -> Self {
        Self(n << 1)
    }
    /// The n-th link that was accepted for the machine.
    #[must_use]
    pub const fn accepted(n: u64) -> Self {
        Self(n << 1 | 1)
    }
    /// Whether the machine dialed it.
    #[must_use]
    pub const fn is_dialed(self) -> bool {
        self.0 & 1 == 0
    }
}
impl CallId {
    /// Events that answer no call carry this id.
    pub const NONE: Self = Self(0);
}

fn pack(epoch: Epoch, counter: u64) -> u64 {
    assert!(
        counter < 1 << COUNTER_BITS,
        "an epoch issues fewer than 2^40 ids"
    );
    assert!(epoch.0 < 1 << (63 - COUNTER_BITS), "ids stay below 2^63");
    u64::from(epoch.0) << COUNTER_BITS | counter
}

/// A start of a meta server, growing past every epoch heard of. Below 2^23.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Epoch(pub u32);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One accepted hello of one chunkserver: orders and answers of another term have no effect.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Term {
    /// The epoch of the meta server that accepted it.
    pub epoch: Epoch,
    /// Counts within the epoch, over all chunkservers.
    pub number: u64,
}

macro_rules! random_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub u128);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
        impl core::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                match u128::from_str_radix(text, 16) {
                    Ok(id) if digits => Ok(Self(id)),
                    _ => Err(format!("'{text}' is not an id of 32 hexadecimal digits")),
                }
            }
        }
    )+};
}
random_id!(
    /// A cluster, drawn at random when its meta server is formatted. Zero: not known yet.
    ClusterId,
    /// A server, drawn at random when it is formatted.
    NodeId,
    /// A data directory, drawn at random when it is formatted.
    DiskId,
);

impl ClusterId {
    /// The low 64 bits, as the chunk header's file-system id.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)]
    pub const fn low(self) -> u64 {
        self.0 as u64
    }
}

impl WriteSeq {
    /// The write that a chunk is at when another session begins to write it after this write: above every write that a
    /// session of before can have numbered, whatever it still sends. `None`: there have been too many.
    ///
    /// The upper bits say how often that was, the lower [`COUNTER_BITS`] count the writes of one session.
    #[must_use]
    pub const fn taken_over(self) -> Option<Self> {
        let tenure = (self.0 >> COUNTER_BITS) + 1;
        if tenure < ID_LIMIT >> COUNTER_BITS {
            Some(Self(tenure << COUNTER_BITS))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_later_epoch_are_greater_than_all_of_an_earlier_one() {
        let last = ChunkId::issued(Epoch(6), (1 << COUNTER_BITS) - 1);
        let first = ChunkId::issued(Epoch(7), 0);
        assert!(last < first);
        assert_eq!((first.epoch(), first.counter()), (Epoch(7), 0));
    }

    #[test]
    fn an_id_text_that_is_short_or_signed_is_refused() {
        let id = ClusterId(0xabc);
        assert_eq!(id.to_string().parse::<ClusterId>(), Ok(id));
        assert!("abc".parse::<ClusterId>().is_err());
        assert!(
            "+0000000000000000000000000000abc"
                .parse::<ClusterId>()
                .is_err()
        );
    }
}
