use chrono::{DateTime, Utc};

use super::{Place, Raw};

/// Records as one array a column, the shape in which `unnest` takes them.
#[derive(Debug, Default)]
pub(crate) struct Columns<'a> {
    pub(crate) partitions: Vec<i32>,
    pub(crate) offsets: Vec<i64>,
    pub(crate) recorded_at: Vec<Option<DateTime<Utc>>>,
    pub(crate) keys: Vec<Option<&'a [u8]>>,
    pub(crate) values: Vec<Option<&'a [u8]>>,
    /// As JSON; see `RecordHeaders`.
    pub(crate) headers: Vec<String>,
}

impl<'a> Columns<'a> {
    /// These records', in their order.
    pub(crate) fn of(
        records: impl Iterator<Item = (Place, &'a Raw)>,
    ) -> Result<Self, serde_json::Error> {
        let mut columns = Self::default();
        for (place, raw) in records {
            columns.partitions.push(place.partition);
            columns.offsets.push(place.offset);
            columns.recorded_at.push(raw.recorded_at());
            columns.keys.push(raw.key());
            columns.values.push(raw.value());
            columns.headers.push(serde_json::to_string(&raw.headers())?);
        }
        Ok(columns)
    }
}
