//! The publisher against a real PostgreSQL (`DATABASE_URL`, a superuser) and a real broker
//! (`KAFKA_BROKERS`). Each test has a database and topics of its own.

#[cfg(test)]
mod hints;
#[cfg(test)]
mod housekeeping;
#[cfg(test)]
mod lag;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod letters;
#[cfg(test)]
mod log;
#[cfg(test)]
mod order;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod resend;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod support;
#[cfg(test)]
mod topics;
