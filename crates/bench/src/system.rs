//! What the machine is, and what its processes cost.

mod disk;
mod machine;
mod processes;
mod procfs;

pub use disk::fdatasync_median;
pub use machine::Machine;
pub use processes::{CpuTimes, Part, PeakMemory, Processes};
