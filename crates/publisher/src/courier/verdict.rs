use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What became of a row that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The broker has it.
    Delivered,
    /// It may or may not have arrived, and the fault need not be its own: send it again, in its
    /// place.
    Unknown,
    /// The topic or partition is not there (any more): look at the topics before sending again.
    TopicGone,
    /// It, or the batch it was in, is refused for good.
    Refused(RDKafkaErrorCode),
}

/// Why a row was not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSent {
    /// There is no room now.
    QueueFull,
    /// This producer sends nothing any more, or the topic is gone.
    Broken(Verdict),
    /// This very row can never be sent.
    Refused(RDKafkaErrorCode),
}

impl Verdict {
    /// What an error says about a row.
    pub(super) fn of(error: &KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            // Purged by us, or swept along by another batch's failure; the fault is elsewhere.
            None
            | Some(
                Code::PurgeQueue
                | Code::PurgeInflight
                | Code::Fatal
                | Code::BrokerDestroy
                | Code::Inconsistent
                | Code::InvalidDifferentRecord
                | Code::GaplessGuarantee
                | Code::Retry
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::MessageTimedOut
                | Code::OperationTimedOut
                | Code::OutOfOrderSequenceNumber
                | Code::DuplicateSequenceNumber
                | Code::InvalidProducerEpoch
                | Code::UnknownProducerId,
            ) => Verdict::Unknown,
            Some(Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition) => {
                Verdict::TopicGone
            }
            Some(code) => Verdict::Refused(code),
        }
    }
}

impl NotSent {
    /// What an error says about a row that was not even queued.
    pub(super) fn of(error: &KafkaError) -> Self {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
            return Self::QueueFull;
        }
        match Verdict::of(error) {
            Verdict::Refused(code) => Self::Refused(code),
            broken => Self::Broken(broken),
        }
    }
}

/// Whether a refusal is the row's own fault for good: what it is made of, and no broker of these
/// topics' settings will take it. Any other is a fault of the system, which somebody mends: a grant,
/// a policy, a setting that the topic and this service do not share, a clock (`INVALID_TIMESTAMP`: a
/// record bears the time of its sending). A record damaged on its way (`CORRUPT_MESSAGE`) is to be sent
/// again.
pub(crate) const fn is_for_good(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidRecord
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rows_own_fault_refuses_it() {
        use RDKafkaErrorCode as Code;
        let table = [
            (
                Code::MessageSizeTooLarge,
                Verdict::Refused(Code::MessageSizeTooLarge),
            ),
            (Code::InvalidRecord, Verdict::Refused(Code::InvalidRecord)),
            (Code::InvalidDifferentRecord, Verdict::Unknown),
            (Code::PurgeInflight, Verdict::Unknown),
            (Code::PurgeQueue, Verdict::Unknown),
            (Code::OutOfOrderSequenceNumber, Verdict::Unknown),
            (Code::Fatal, Verdict::Unknown),
            (Code::UnknownTopicOrPartition, Verdict::TopicGone),
        ];
        for (code, expected) in table {
            let error = KafkaError::MessageProduction(code);
            assert_eq!(Verdict::of(&error), expected, "{code:?}");
        }
        for code in [Code::MessageSizeTooLarge, Code::InvalidRecord] {
            assert!(is_for_good(code), "{code:?}");
        }
        for code in [
            Code::TopicAuthorizationFailed,
            Code::PolicyViolation,
            Code::NotEnoughReplicas,
            Code::UnknownTopicOrPartition,
            Code::UnsupportedCompressionType,
            Code::InvalidMessage,
            Code::InvalidTimestamp,
        ] {
            assert!(!is_for_good(code), "{code:?}");
        }
        let full = KafkaError::MessageProduction(Code::QueueFull);
        assert_eq!(NotSent::of(&full), NotSent::QueueFull);
    }
}
