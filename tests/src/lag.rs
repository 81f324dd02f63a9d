//! How long results take from the end of their check until the master has them: read from history's events, so that it is what
//! everybody can see. Knows no process. The surprise: the two times are of two clocks, so this holds on one machine only.

use std::time::Duration;

use serde_json::Value;

/// Lags of some results, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lags(Vec<Duration>);

/// A time of the API in milliseconds since 1970.
fn millis(event: &Value, field: &str) -> Option<i64> {
    event.get(field)?.as_str()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

impl Lags {
    /// Of the results whose check ended in `from..to` (milliseconds since 1970).
    ///
    /// # Errors
    /// An event that is no result; it is in the message.
    pub fn of(results: &[Value], from: i64, to: i64) -> Result<Self, String> {
        let mut lags = Vec::new();
        for event in results {
            let read = || {
                let micros = event.get("duration_us")?.as_i64()?;
                Some((millis(event, "started")? + micros / 1000, millis(event, "recorded")?))
            };
            let (ended, recorded) = read().ok_or_else(|| format!("no result: {event}"))?;
            if (from..to).contains(&ended) {
                lags.push(Duration::from_millis(u64::try_from(recorded - ended).unwrap_or(0)));
            }
        }
        lags.sort_unstable();
        Ok(Self(lags))
    }

    /// How many results.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The lag that so many hundredths of the results do not exceed; none of nothing.
    #[must_use]
    pub fn percentile(&self, hundredths: usize) -> Duration {
        let at = (self.0.len() * hundredths).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.percentile(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(ended: i64, recorded: i64) -> Value {
        let text = |millis| jiff::Timestamp::from_millisecond(millis).unwrap().to_string();
        serde_json::json!({ "started": text(ended - 5), "duration_us": 5000, "recorded": text(recorded) })
    }

    #[test]
    fn lags_are_from_the_end_of_a_check_until_it_is_recorded() {
        let results: Vec<Value> = (1..=200).map(|n| result(1_000_000 + n, 1_000_000 + n + 10 * n)).collect();
        let lags = Lags::of(&results, 1_000_000, 1_000_101).unwrap();
        assert_eq!(lags.count(), 100);
        let millis = Duration::from_millis;
        assert_eq!(
            [lags.percentile(50), lags.percentile(99), lags.longest()],
            [millis(500), millis(990), millis(1000)]
        );
        assert_eq!(Lags::default().percentile(99), Duration::ZERO);
        assert!(Lags::of(&[serde_json::json!({})], 0, 1).is_err());
    }
}
