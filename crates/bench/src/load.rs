//! Everything that asks the api for something: `wrk` for how much it takes, our own generator for
//! how long it takes.

mod answer;
mod batches;
mod connection;
mod instructions;
mod open_loop;
mod probe;
mod schedule;
mod tally;
mod thread;
mod turns;
mod wrk;

pub use batches::{BATCH_ITEMS, Batches, Until};
pub use connection::{Answer, Connection, Target};
pub use instructions::{Instruction, Instructions};
pub use open_loop::OpenLoop;
pub use probe::{FIRST_LOOK, POLL, Probe, WARM_UP};
pub use schedule::Schedule;
pub use tally::Tally;
pub use turns::{GRACE, Pace, Window};
pub use wrk::{Capacity, Wrk};
