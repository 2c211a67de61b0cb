use rdkafka::{
    ClientContext, client::DefaultClientContext, config::RDKafkaLogLevel,
    consumer::ConsumerContext, error::KafkaError,
};
use tracing::debug;

/// The callbacks of clients that ask questions and get their errors as answers: what librdkafka
/// tells beside is a repetition, many times a second while brokers are away.
#[derive(Clone, Debug)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => {
                debug!(facility, message, "librdkafka");
            }
            _ => DefaultClientContext.log(level, facility, message),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}
