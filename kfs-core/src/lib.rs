//! KFS as three state machines: [`meta::Meta`], [`chunk::Chunk`] and [`client::Client`].
//!
//! A machine is a value. A clock reading and an input go in, a queue of outputs comes out; the same
//! configuration, seed and inputs give the same outputs, always. Nothing here reads a clock, draws
//! entropy, opens a file or a socket, or starts a thread: drivers do that, in production over tokio
//! and in the simulator over madsim and a simulated disk.
//!
//! Read [`machine`] first (the contract), then [`outbox`] (what "acknowledged" rests on), then the
//! machine you came for.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod block;
pub mod buggify;
pub mod chunk;
pub mod client;
pub mod health;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod meta;
pub mod outbox;
pub mod planted;
pub mod probe;
pub mod rng;
pub mod time;
pub mod trace;
pub mod wire;

/// A simulation can be forked at any event: machines, what goes in and what comes out are values.
const _: () = {
    const fn forks<M: machine::Machine + Clone>()
    where
        machine::Input<M::Call>: Clone,
        machine::Output<M::Event>: Clone,
    {
    }
    forks::<meta::Meta>();
    forks::<chunk::Chunk>();
    forks::<client::Client>();
};
