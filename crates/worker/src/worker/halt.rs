use rdkafka::error::KafkaError;
use thiserror::Error;

/// Why a worker stopped for good: only its successor consumes again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("stopped: {0}")]
pub struct Halt(String);

impl Halt {
    pub(super) fn consumer(error: &KafkaError) -> Self {
        Self(format!("the consumer failed for good: {error}"))
    }
}
