//! Postonce's REST service.

fn main() {}
