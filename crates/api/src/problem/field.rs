use std::borrow::Cow;

use serde::Serialize;
use utoipa::ToSchema;
use validator::{ValidationErrors, ValidationErrorsKind};

use super::{Code, Problem};

/// One field that is wrong, and what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: a field of the body, a parameter of the query, or the id of the path.
    pub field: Cow<'static, str>,
    /// What is wrong, to match on.
    pub code: Cow<'static, str>,
    /// What it should be, in words.
    pub detail: Cow<'static, str>,
}

impl FieldError {
    /// A field's error.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            field: field.into(),
            code: code.into(),
            detail: detail.into(),
        }
    }

    /// What `validator` found, as a problem; its fields in the order of their names.
    #[must_use]
    pub fn refusal(found: ValidationErrors) -> Problem {
        let fields = found.0.into_iter();
        let mut errors: Vec<_> = fields
            .flat_map(|(field, kind)| of_field(&field, kind))
            .collect();
        errors.sort_by(|a, b| a.field.cmp(&b.field));
        Problem::new(Code::ValidationFailed).errors(errors)
    }
}

fn of_field(field: &str, kind: ValidationErrorsKind) -> Vec<FieldError> {
    let ValidationErrorsKind::Field(errors) = kind else {
        // None of our bodies nests another.
        return Vec::new();
    };
    // A field named by a keyword of Rust carries its escape.
    let field = field.trim_start_matches("r#").to_owned();
    errors
        .into_iter()
        .map(|error| {
            let detail = error.message.unwrap_or(Cow::Borrowed("is not valid"));
            FieldError::new(field.clone(), error.code, detail)
        })
        .collect()
}
