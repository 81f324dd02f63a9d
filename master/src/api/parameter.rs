//! The parameters of a request: each name once, known names only, values within their bounds. Decides what a wrong one is told.
//! Knows no route; a route says which names it takes.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use shared::time::Timestamp;

use crate::api::error::ApiError;
use crate::config::diagnostic::did_you_mean;

/// Items of one answer at most; a greater limit is refused.
pub(crate) const LIMIT_MAX: usize = 1000;
/// Items of one answer when nobody says.
pub(crate) const LIMIT: usize = 100;
/// Longest value in bytes; a longer one is refused.
const VALUE_BYTES_MAX: usize = 4096;
/// The names that all lists take.
pub(crate) const OF_LISTS: [&str; 4] = ["filter", "sort", "limit", "cursor"];

/// The parameters as they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Query(pairs) = read.map_err(|error| ApiError::parameter("query", error.to_string()))?;
        Ok(Self(pairs))
    }
}

/// A request that takes no parameters and was given none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoParameters;

impl<S: Send + Sync> FromRequestParts<S> for NoParameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Parameters::from_request_parts(parts, state).await?.known(&[]).map(|_| Self)
    }
}

/// Known parameters by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known(BTreeMap<String, String>);

impl Parameters {
    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// The parameters, if all of them are known.
    pub(crate) fn known(self, names: &[&'static str]) -> Result<Known, ApiError> {
        let mut known = BTreeMap::new();
        for (name, value) in self.0 {
            if !names.contains(&name.as_str()) {
                let name: String = name.chars().take(40).collect();
                let hint = did_you_mean(&name, names.iter().copied());
                let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                return Err(ApiError::parameter(
                    &name,
                    format!("there is no parameter “{}”{hint}", name.escape_debug()),
                ));
            }
            if value.len() > VALUE_BYTES_MAX {
                return Err(ApiError::parameter(&name, format!("longer than {VALUE_BYTES_MAX} bytes")));
            }
            if known.insert(name.clone(), value).is_some() {
                return Err(ApiError::parameter(&name, "given twice"));
            }
        }
        Ok(Known(known))
    }
}

impl Known {
    /// A value, if given and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// How many items.
    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.text("limit") else { return Ok(LIMIT) };
        match text.parse() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            Ok(_) | Err(_) => Err(ApiError::parameter("limit", format!("a limit is a number from 1 to {LIMIT_MAX}"))),
        }
    }

    /// A switch: `1`, `true`, `0`, `false`.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(ApiError::parameter(name, "write 1 or 0")),
        }
    }

    /// A time.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let parsed: Result<jiff::Timestamp, _> = text.parse();
        let wrong = |_| ApiError::parameter(name, "a time is written as in 2026-01-31T12:00:00Z");
        parsed.map(|time| Some(Timestamp::from_millis(time.as_millisecond()))).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_parameter_is_answered_with_the_one_that_was_meant() {
        let error = Parameters::of(&[("limt", "3")]).known(&OF_LISTS).unwrap_err();
        assert_eq!((error.code, error.place.as_deref()), ("bad-parameter", Some("limt")));
        assert!(error.message.contains("did you mean `limit`?"), "{}", error.message);
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_the_bounds() {
        let known = |pairs: &[(&str, &str)]| Parameters::of(pairs).known(&["limit", "digest", "from"]).unwrap();
        assert_eq!(known(&[]).limit(), Ok(LIMIT));
        assert_eq!(known(&[("limit", "1000")]).limit(), Ok(1000));
        for wrong in ["0", "1001", "x", "-1"] {
            assert!(known(&[("limit", wrong)]).limit().unwrap_err().message.contains("1000"), "{wrong}");
        }
        assert_eq!(known(&[("digest", "1")]).switch("digest"), Ok(true));
        assert!(known(&[("digest", "yes")]).switch("digest").is_err());
        let at = known(&[("from", "1970-01-01T00:00:01Z")]).time("from").unwrap();
        assert_eq!(at, Some(Timestamp::from_millis(1000)));
        assert!(known(&[("from", "yesterday")]).time("from").is_err());
        assert!(Parameters::of(&[("limit", "1"), ("limit", "2")]).known(&["limit"]).is_err());
    }
}
