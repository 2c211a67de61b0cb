//! The benchmark behind `make bench`: how much Postonce takes, how fast, and what it costs, measured
//! on the real binaries over HTTP, with the ledger checked behind every load.
//!
//! It asserts no speed. A budget that is missed is reported; only a wrong ledger is an error. What is
//! measured and how to read it stands in `docs/performance.md`.

pub mod accounts;
pub mod backlog;
pub mod figures;
pub mod growth;
pub mod history;
pub mod ledger;
pub mod load;
pub mod report;
pub mod rig;
pub mod sections;
pub mod settings;
pub mod sustained;
pub mod system;
