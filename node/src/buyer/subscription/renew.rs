//! Keeping the keys of what comes: the next range is asked for before the prepaid one ends, under the same terms.

use std::{sync::Arc, time::Duration};

use tributary_protocol::{
    access::{Range, Selection},
    wire::DenyCode,
};

use super::{
    Shared,
    row::{self, Ended},
};
use crate::{
    buyer::{AccessOutcome, Buyer, error::AccessError},
    feeds::{FeedsError, blocking},
};

/// How long before its end a range is renewed at most.
const MAX_AHEAD_MS: u64 = 10 * 60 * 1000;
/// Two requests of one subscription are at least so far apart.
const MIN_APART_MS: u64 = 1000;
/// How often a request that waits for an operator is looked after.
const PENDING: Duration = Duration::from_secs(10);
/// Ranges of past chunks in one request.
const MAX_GAPS: usize = 16;

/// What asking led to.
pub(super) enum Renewed {
    /// Nothing is to be asked for so long.
    Rests(Duration),
    /// It did not work; it is tried again.
    Failed(String),
    /// It is over.
    Ended,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Feeds(#[from] FeedsError),
    #[error("the machine asks {amount} {token} for the next range, and at most {max} may be paid")]
    Price { amount: u128, token: String, max: u128 },
    #[error("the selection cannot be made: {0}")]
    Selection(String),
}

impl RenewError {
    /// Whether it makes no sense to ask again.
    fn ends(&self) -> bool {
        matches!(self, Self::Access(AccessError::Denied { code: DenyCode::Revoked | DenyCode::Refused, .. }))
    }
}

impl Buyer {
    /// Asks for keys if it is time to. `gaps` are ranges of chunks that are announced and whose keys are not here.
    pub(super) async fn renew(&self, shared: &Arc<Shared>, gaps: Vec<Range>) -> Renewed {
        match self.try_renew(shared, gaps).await {
            Ok(rest) => Renewed::Rests(rest),
            Err(error) if error.ends() => {
                let mut row = shared.row().clone();
                row.request = None;
                row.ended = Some(Ended { reason: full(&error), at_ms: self.feeds().now() });
                match self.keep_row(shared, row).await {
                    Ok(()) => Renewed::Ended,
                    Err(error) => Renewed::Failed(error.to_string()),
                }
            }
            Err(error) => Renewed::Failed(full(&error)),
        }
    }

    async fn try_renew(&self, shared: &Arc<Shared>, gaps: Vec<Range>) -> Result<Duration, RenewError> {
        let row = shared.row().clone();
        let now_ms = self.feeds().now();
        let asked = match row.request {
            Some(request) => match self.fetch_access(&shared.did, request, Duration::ZERO).await {
                // Decided and fetched before a restart, or too old.
                Err(AccessError::UnknownRequest(_)) => None,
                other => Some(other),
            },
            None => None,
        };
        let outcome = match asked {
            Some(outcome) => outcome,
            None => {
                if let Some(rest) = rest(&row, now_ms, !gaps.is_empty()) {
                    return Ok(rest);
                }
                self.ask(shared, &row.terms, gaps).await?
            }
        };
        let mut row = shared.row().clone();
        match outcome {
            Ok(AccessOutcome::Granted { grants, .. }) => {
                let now_ms = self.feeds().now();
                // By the machine's clock it may have begun earlier; not by more than its clock is behind, which is not known.
                let issued_ms = grants.iter().map(|grant| grant.issued_ms).max().unwrap_or(now_ms).min(now_ms);
                row.until_ms = Some(issued_ms.saturating_add(u64::from(row.terms.live_seconds) * 1000));
                (row.granted_ms, row.request) = (Some(now_ms), None);
                let rest = rest(&row, now_ms, false).unwrap_or(Duration::from_millis(MIN_APART_MS));
                self.keep_row(shared, row).await?;
                Ok(rest)
            }
            Ok(AccessOutcome::Pending { request_id }) => {
                row.request = Some(request_id);
                self.keep_row(shared, row).await?;
                Ok(PENDING)
            }
            Err(error) => {
                if matches!(error, AccessError::Denied { .. }) && row.request.is_some() {
                    row.request = None;
                    self.keep_row(shared, row).await?;
                }
                Err(error.into())
            }
        }
    }

    async fn ask(
        &self,
        shared: &Arc<Shared>,
        terms: &super::SubscriptionTerms,
        mut gaps: Vec<Range>,
    ) -> Result<Result<AccessOutcome, AccessError>, RenewError> {
        gaps.truncate(MAX_GAPS);
        gaps.push(Range::Live { stream: shared.stream, seconds: terms.live_seconds });
        let selection = Selection::new(gaps).map_err(|error| RenewError::Selection(error.to_string()))?;
        let quote = self.quote(&shared.did, selection).await?;
        let price = &quote.quote().price;
        if price.amount > terms.max_price {
            let (amount, token) = (price.amount, price.token.clone());
            return Err(RenewError::Price { amount, token, max: terms.max_price });
        }
        Ok(self.take_quote(&quote, None, Duration::ZERO).await)
    }

    /// Makes a row durable, then what others see.
    pub(super) async fn keep_row(&self, shared: &Arc<Shared>, row: row::Row) -> Result<(), FeedsError> {
        let (store, shared) = (self.feeds().store().clone(), Arc::clone(shared));
        blocking(move || {
            shared.writing(|| {
                row::save(&store, &shared.did, &shared.stream, &row)?;
                *shared.row() = row;
                Ok(())
            })
        })
        .await?
    }
}

/// How long nothing is to be asked for; `None` when it is time to.
fn rest(row: &row::Row, now_ms: u64, gap: bool) -> Option<Duration> {
    let length_ms = u64::from(row.terms.live_seconds) * 1000;
    let (Some(until_ms), Some(granted_ms)) = (row.until_ms, row.granted_ms) else { return None };
    let ahead_ms = (length_ms / 4).clamp(MIN_APART_MS, MAX_AHEAD_MS);
    // A machine whose clock is far behind must not be asked without end.
    let soonest_ms = granted_ms.saturating_add((length_ms / 2).max(MIN_APART_MS));
    let due_ms =
        if gap { granted_ms.saturating_add(MIN_APART_MS) } else { until_ms.saturating_sub(ahead_ms).max(soonest_ms) };
    // A clock that was set back by more than a range is no reason to wait for it.
    let left_ms = due_ms.saturating_sub(now_ms).min(length_ms);
    (left_ms > 0).then(|| Duration::from_millis(left_ms))
}

/// An error with what is behind it.
pub(super) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(live_seconds: u32, granted_ms: u64, until_ms: u64) -> row::Row {
        let terms = super::super::SubscriptionTerms {
            stream: "/imu".to_owned(),
            renew: true,
            live_seconds,
            max_price: 0,
            pull: false,
            sink: None,
        };
        let (granted_ms, until_ms) = (Some(granted_ms), Some(until_ms));
        row::Row { granted_ms, until_ms, ..row::Row::new(terms, 0) }
    }

    #[test]
    fn a_range_is_renewed_before_it_ends_and_not_without_end() {
        let hour = row(3600, 0, 3_600_000);
        assert_eq!(rest(&hour, 0, false), Some(Duration::from_secs(3000)), "ten minutes before its end");
        assert_eq!(rest(&hour, 3_000_000, false), None);
        assert_eq!(rest(&row(60, 0, 60_000), 0, false), Some(Duration::from_secs(45)));
        // By a clock that is an hour behind, the range ends when it begins.
        assert_eq!(rest(&row(60, 3_600_000, 60_000), 3_600_000, false), Some(Duration::from_secs(30)));
        assert_eq!(rest(&hour, 500, true), Some(Duration::from_millis(500)), "a gap does not wait for the end");
        assert_eq!(rest(&hour, 1000, true), None);
        let mut new = hour;
        (new.granted_ms, new.until_ms) = (None, None);
        assert_eq!(rest(&new, 0, false), None);
    }
}
