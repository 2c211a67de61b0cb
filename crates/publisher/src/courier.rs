//! A Kafka producer that leaves no gaps, and its delivery reports.

mod verdict;

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::types::{EventEnvelope, RecordHeaders};
use rdkafka::{
    ClientConfig, ClientContext,
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer},
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tracing::{debug, warn};
pub(crate) use verdict::{NotSent, Verdict, is_for_good};

use crate::{hinted::Hinted, settings::TOPICS};

/// Most bytes of rows that wait in a producer, in KiB: it bounds the service's memory.
const QUEUE_KBYTES_MAX: u32 = 32 * 1024;
/// The smallest `message.max.bytes` that librdkafka takes; for a topic with less, the broker says
/// no itself.
const MESSAGE_BYTES_FLOOR: i32 = 1_000;
/// The largest message sent, so that one always fits the queue.
const MESSAGE_BYTES_CEILING: i32 = 16 * 1024 * 1024;
/// How long an acknowledged batch vouches that the broker still knows the producer. Brokers forget
/// idle producers after a day (`producer.id.expiration.ms`).
const KNOWN_FOR: Duration = Duration::from_mins(10);

/// The answer about one row, which is named by the slot it was sent with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) slot: usize,
    pub(crate) verdict: Verdict,
}

/// A row as the courier needs it.
#[derive(Debug)]
pub(crate) struct Parcel<'a> {
    pub(crate) slot: usize,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) content: Content<'a>,
}

/// What a record is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

/// A record's headers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Headers<'a> {
    /// Those of an event of ours.
    Event(EventEnvelope),
    /// Whatever they are.
    Record(&'a RecordHeaders),
}

impl Headers<'_> {
    fn to_send(self) -> OwnedHeaders {
        match self {
            Self::Event(envelope) => {
                let headers = envelope.headers();
                owned(
                    headers
                        .iter()
                        .map(|(key, value)| (*key, Some(value.as_bytes()))),
                )
            }
            Self::Record(headers) => {
                let headers = headers.0.iter();
                owned(headers.map(|(key, value)| (key.as_str(), value.bytes())))
            }
        }
    }
}

fn owned<'a>(headers: impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)>) -> OwnedHeaders {
    let empty = OwnedHeaders::new_with_capacity(headers.len());
    headers.fold(empty, |owned, (key, value)| {
        owned.insert(Header { key, value })
    })
}

/// One producer, from its making to its first failure.
///
/// It is idempotent and gapless: a batch that is refused for good is a fatal error, after which
/// nothing is sent any more, so no row passes one before it. A courier that failed is replaced.
pub(crate) struct Courier {
    producer: ThreadedProducer<Reports>,
    reports: mpsc::UnboundedReceiver<Report>,
    failed: Arc<AtomicBool>,
    message_bytes_max: i32,
    /// By topic and partition: when the broker last took a batch of this producer.
    known_at: [Vec<Option<Instant>>; TOPICS],
}

/// Takes librdkafka's callbacks, which come on its polling thread and must not wait.
struct Reports {
    sender: mpsc::UnboundedSender<Report>,
    signals: Signals,
    failed: Arc<AtomicBool>,
}

/// Whom a courier wakes.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    /// The cycle: there are reports.
    pub(crate) wake: Arc<Hinted>,
    /// The topics' keeper: the brokers seem to be away.
    pub(crate) recheck: Arc<Notify>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka calls the gapless guarantee experimental each time it is switched on.
        if facility == "CONFWARN" {
            debug!(message, "librdkafka");
        } else {
            DefaultClientContext.log(level, facility, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.signals.recheck.notify_one();
        }
        // A fatal error need not come with a report: without a producer id nothing is ever sent.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.failed.store(true, Ordering::Relaxed);
            self.signals.wake.wake();
        }
        warn!(%error, reason, "producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let verdict = match result {
            Ok(_) => Verdict::Delivered,
            Err((error, _)) => {
                self.failed.store(true, Ordering::Relaxed);
                Verdict::of(error)
            }
        };
        // The receiver goes only together with the courier, when no report matters any more.
        let _ = self.sender.send(Report { slot, verdict });
        self.signals.wake.wake();
    }
}

impl Courier {
    /// Makes a producer; nothing is connected yet.
    pub(crate) fn new(
        brokers: &str,
        partitions: i32,
        topic_message_bytes_max: i32,
        signals: Signals,
    ) -> Result<Self, KafkaError> {
        let (sender, reports) = mpsc::unbounded_channel();
        let failed = Arc::new(AtomicBool::new(false));
        let context = Reports {
            sender,
            signals,
            failed: Arc::clone(&failed),
        };
        let producer = config(brokers, topic_message_bytes_max).create_with_context(context)?;
        let partitions = usize::try_from(partitions).unwrap_or(0);
        Ok(Self {
            producer,
            reports,
            failed,
            message_bytes_max: topic_message_bytes_max,
            known_at: array::from_fn(|_| vec![None; partitions]),
        })
    }

    /// Hands a row to the producer; its report comes later.
    pub(crate) fn send(&self, parcel: &Parcel<'_>) -> Result<(), NotSent> {
        let content = &parcel.content;
        let mut record = BaseRecord::with_opaque_to(parcel.topic, parcel.slot)
            .partition(parcel.partition)
            .headers(content.headers.to_send());
        record.key = content.key;
        record.payload = content.value;
        self.producer
            .send(record)
            .map_err(|(error, _)| NotSent::of(&error))
    }

    /// The next report that is there already.
    pub(crate) fn next_report(&mut self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// Remembers that the broker took a batch from this producer.
    pub(crate) fn note_known(&mut self, topic: usize, partition: i32, now: Instant) {
        if let Some(at) = self.known_slot(topic, partition) {
            *at = Some(now);
        }
    }

    /// Whether the broker surely holds this producer's last sequence number for a partition.
    ///
    /// Only then does it refuse a batch behind a refused one: a broker takes any first number from
    /// a producer it does not know (Kafka, `ProducerAppendInfo.checkSequence`), so with several
    /// requests under way the second would be stored without the first.
    pub(crate) fn is_known(&mut self, topic: usize, partition: i32, now: Instant) -> bool {
        self.known_slot(topic, partition)
            .and_then(|at| *at)
            .is_some_and(|at| now < at + KNOWN_FOR)
    }

    fn known_slot(&mut self, topic: usize, partition: i32) -> Option<&mut Option<Instant>> {
        let partition = usize::try_from(partition).ok()?;
        self.known_at.get_mut(topic)?.get_mut(partition)
    }

    /// Whether anything went wrong. Most of it is fatal to librdkafka too; a row that failed for a
    /// local reason (its topic is gone) is not, but the ones behind it must not pass it either.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why librdkafka sends nothing any more, if that was not for the sake of a refused batch.
    pub(crate) fn broker_complaint(&self) -> Option<String> {
        let (code, reason) = self.producer.client().fatal_error()?;
        (code != RDKafkaErrorCode::GaplessGuarantee).then(|| format!("{code}: {reason}"))
    }

    /// The topics' limit this producer was made for.
    pub(crate) const fn message_bytes_max(&self) -> i32 {
        self.message_bytes_max
    }

    /// Ends all that is under way; the reports of it follow.
    pub(crate) fn purge(&self) {
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
    }

    /// Lets the producer go. Its threads end in the background, since waiting for them may take
    /// half a second.
    pub(crate) fn retire(self) {
        tokio::task::spawn_blocking(move || drop(self));
    }
}

fn config(brokers: &str, topic_message_bytes_max: i32) -> ClientConfig {
    let message_bytes_max =
        topic_message_bytes_max.clamp(MESSAGE_BYTES_FLOOR, MESSAGE_BYTES_CEILING);
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "postonce-publisher")
        .set("enable.idempotence", "true")
        .set("enable.gapless.guarantee", "true")
        .set("acks", "all")
        // A message that timed out alone would let the ones behind it pass.
        .set("message.timeout.ms", "0")
        .set("message.max.bytes", message_bytes_max.to_string())
        .set("compression.type", "lz4")
        // Rows are handed over in crowds already. The client's clock ticks in milliseconds: any
        // pause at all keeps a lone row for one of them.
        .set("linger.ms", "0")
        .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX.to_string())
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        // A broker that went without a word is given up after 10 s, not after a minute; what it was
        // sent goes again under the same sequence numbers.
        .set("socket.timeout.ms", "10000")
        .set("log.connection.close", "false");
    config
}
