//! Long queues: what is read grows with what is done, not with what waits.
