//! How long answers take until what they say is shown: from the moment a daemon gives one, by the outside ledger, until the API shows
//! it or a newer one of the same service. So it is what a watcher would see, check to state. Knows no process.
//! The surprise: the two times are of two programs, so this holds on one machine only.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ledger::Answer;
use crate::shown::Shown;

/// Lags of some answers, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lags(Vec<Duration>);

impl Lags {
    /// Of the answers given in `from..to` (milliseconds since 1970). `commands` are those of (host, service).
    ///
    /// # Errors
    /// An answer that was never shown, nor a newer one; it is in the message.
    pub fn of(
        answers: &[Answer],
        commands: &BTreeMap<(String, String), String>,
        shown: &Shown,
        from: i64,
        to: i64,
    ) -> Result<Self, String> {
        let services: BTreeMap<(&str, &str), &str> =
            commands.iter().map(|((host, service), command)| ((&**host, &**command), &**service)).collect();
        let mut lags = Vec::new();
        for answer in answers {
            let given = i64::try_from(answer.at).unwrap_or(i64::MAX);
            let Some(service) =
                services.get(&(&*answer.host, &*answer.command)).filter(|_| (from..to).contains(&given))
            else {
                continue;
            };
            let since = shown.since(&answer.host, service, answer.serial);
            let since = since.ok_or_else(|| format!("never shown: {answer:?}"))?;
            lags.push(Duration::from_millis(u64::try_from(since - given).unwrap_or(0)));
        }
        lags.sort_unstable();
        Ok(Self(lags))
    }

    /// How many answers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The lag that so many hundredths of the answers do not exceed; none of nothing.
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

    #[test]
    fn lags_are_from_an_answer_until_it_is_shown() {
        let commands = BTreeMap::from([(("h".to_owned(), "s".to_owned()), "c".to_owned())]);
        let answer = |n: u64| Answer { at: 1_000_000 + n, host: "h".to_owned(), command: "c".to_owned(), serial: n };
        let answers: Vec<Answer> = (1..=200).map(answer).collect();
        let mut shown = Shown::default();
        for n in 1..=100_i64 {
            let service = serde_json::json!({ "host": "h", "service": "s", "perfdata": format!("serial={n}") });
            shown.note(1_000_000 + n + 10 * n, &[service]);
        }
        let lags = Lags::of(&answers, &commands, &shown, 1_000_000, 1_000_101).unwrap();
        assert_eq!(lags.count(), 100);
        let millis = Duration::from_millis;
        assert_eq!(
            [lags.percentile(50), lags.percentile(99), lags.longest()],
            [millis(500), millis(990), millis(1000)]
        );
        assert_eq!(Lags::default().percentile(99), Duration::ZERO);
        assert!(Lags::of(&answers, &commands, &shown, 1_000_000, 1_000_102).is_err(), "one was never shown");
        assert_eq!(Lags::of(&answers, &BTreeMap::new(), &shown, 0, i64::MAX).unwrap().count(), 0, "nobody's");
    }
}
