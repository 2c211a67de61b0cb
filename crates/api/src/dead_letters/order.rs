use chrono::{DateTime, Utc};
use common::types::{AccountId, DeadLetterClass};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use super::filter::Filter;
use crate::{
    openapi::schemas,
    pagination::Listing,
    problem::{Code, FieldError, Problem},
    rules,
};

const UNTIL_RULE: &str = "must be the until of a dry run with the same filter";
const CURSOR_RULE: &str = "must be the next_cursor of a run with the same filter and until";
const ONLY_OF_A_RUN: &str = "can be given where dry_run is false only";

/// Which dead letters to replay, and whether to do it or only to count them.
#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayDeadLetters {
    /// Only those that claim this account.
    #[validate(custom(function = rules::any_uuid))]
    #[schema(value_type = Option<uuid::Uuid>)]
    account_id: Option<String>,
    /// Only those given up for this reason.
    #[validate(custom(function = rules::dead_letter_class))]
    #[schema(schema_with = schemas::optional_dead_letter_class)]
    class: Option<String>,
    /// Only those given up at this time or later.
    #[validate(custom(function = rules::time))]
    #[schema(value_type = Option<DateTime<Utc>>)]
    dead_from: Option<String>,
    /// Only those given up before this time.
    #[validate(custom(function = rules::time))]
    #[schema(value_type = Option<DateTime<Utc>>)]
    dead_to: Option<String>,
    /// Whether to count them only.
    dry_run: bool,
    /// The `until` of a dry run with the same filter; a run needs it.
    until: Option<String>,
    /// The `next_cursor` of the run before.
    cursor: Option<String>,
    /// Why, for the record of each.
    #[validate(custom(function = rules::reason))]
    #[schema(schema_with = schemas::optional_reason)]
    reason: Option<String>,
}

/// What was asked for.
pub(super) enum Asked {
    DryRun(DryRun),
    Run(Run),
}

pub(super) struct DryRun {
    pub(super) filter: Filter,
}

pub(super) struct Run {
    pub(super) filter: Filter,
    /// When the dry run was: nothing that died later was counted, so nothing of it is replayed.
    pub(super) until: DateTime<Utc>,
    /// The last letter that a run looked at.
    pub(super) behind: Uuid,
    pub(super) reason: Option<String>,
}

impl TryFrom<ReplayDeadLetters> for Asked {
    type Error = Problem;

    fn try_from(body: ReplayDeadLetters) -> Result<Self, Problem> {
        body.validate().map_err(FieldError::refusal)?;
        let filter = filter(&body);
        if filter.ends_before_it_begins() {
            return Err(refused("dead_from", "after_dead_to", rules::DEAD_FROM_RULE));
        }
        if body.dry_run {
            return dry_run(&body, filter).map(Self::DryRun);
        }
        run(body, filter).map(Self::Run)
    }
}

fn filter(body: &ReplayDeadLetters) -> Filter {
    let time = |text: &Option<String>| text.as_deref().and_then(rules::parse_time);
    let account_id = body.account_id.as_deref().and_then(rules::parse_uuid);
    let class: Option<Option<DeadLetterClass>> =
        body.class.as_deref().map(|name| name.parse().ok());
    Filter {
        account_id: account_id.map(AccountId),
        class: class.flatten(),
        dead_from: time(&body.dead_from),
        dead_to: time(&body.dead_to),
    }
}

fn dry_run(body: &ReplayDeadLetters, filter: Filter) -> Result<DryRun, Problem> {
    let of_a_run = [("until", &body.until), ("cursor", &body.cursor)];
    match of_a_run.iter().find(|(_, value)| value.is_some()) {
        Some((field, _)) => Err(refused(field, "not_of_a_dry_run", ONLY_OF_A_RUN)),
        None => Ok(DryRun { filter }),
    }
}

fn run(body: ReplayDeadLetters, filter: Filter) -> Result<Run, Problem> {
    let until = body
        .until
        .ok_or_else(|| refused("until", "needs_dry_run", UNTIL_RULE))?;
    let until = untils(&filter).decode(&until).and_then(moment);
    let until = until.ok_or_else(|| refused("until", "invalid_value", UNTIL_RULE))?;
    let behind = match body.cursor {
        None => Uuid::nil(),
        Some(cursor) => cursors(&filter, until)
            .decode(&cursor)
            .map(Uuid::from_u128)
            .ok_or_else(|| refused("cursor", "invalid_value", CURSOR_RULE))?,
    };
    Ok(Run {
        filter,
        until,
        behind,
        reason: body.reason,
    })
}

impl DryRun {
    /// What a run has to send back.
    pub(super) fn until(&self, now: DateTime<Utc>) -> String {
        let microseconds = u128::try_from(now.timestamp_micros()).unwrap_or_default();
        untils(&self.filter).encode(microseconds)
    }
}

impl Run {
    /// Whether a letter that died so is one that the dry run counted.
    pub(super) fn means(&self, class: DeadLetterClass, dead_at: DateTime<Utc>) -> bool {
        self.filter.means(class, dead_at, self.until)
    }

    pub(super) fn cursor(&self, last: Uuid) -> String {
        cursors(&self.filter, self.until).encode(last.as_u128())
    }
}

/// Bound to the filter as a cursor is to its list, so that a run replays what its dry run counted.
fn untils(filter: &Filter) -> Listing {
    Listing::new(format!("replay of dead letters {filter:?}"))
}

fn cursors(filter: &Filter, until: DateTime<Utc>) -> Listing {
    Listing::new(format!("replay of dead letters {filter:?} until {until:?}"))
}

fn moment(microseconds: u128) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(i64::try_from(microseconds).ok()?)
}

fn refused(field: &'static str, code: &'static str, rule: &'static str) -> Problem {
    Problem::new(Code::ValidationFailed).errors(vec![FieldError::new(field, code, rule)])
}
