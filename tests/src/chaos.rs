//! The fault suite: real binaries under load, faults by a schedule that a seed decides, and a checker
//! with a record of its own of every acknowledged request.

mod act;
mod dead_letters;
mod fault;
mod fleet;
mod forge;
mod load;
mod mutations;
mod poison;
mod recovery;
mod report;
mod round;
mod schedule;
mod seed;
mod servers;
mod verdict;
mod watch;

pub use fault::{Fault, Link, POINTS, Server, Slot};
pub use mutations::{Cast, Mutant, mutants};
pub use recovery::measure as measure_recovery;
pub use report::Report;
pub use round::{Isolation, Outcome, Plan, run as run_round};
pub use schedule::{Planned, schedule};
