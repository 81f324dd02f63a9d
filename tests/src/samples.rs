//! Figures on a page of metrics, as Prometheus writes them: by the whole name with its labels, or all of a name whatever the labels.

use anyhow::Result;

use crate::http::Client;

/// The page of a running master.
///
/// # Errors
/// The master does not answer.
pub fn page(api: &Client) -> Result<String> {
    api.text("/api/v1/metrics")
}

/// The value of one sample, labels as written.
#[must_use]
pub fn sample(page: &str, name: &str) -> Option<f64> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// The values of all samples of a name, whatever their labels, in the order of the page.
#[must_use]
pub fn samples(page: &str, name: &str) -> Vec<f64> {
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    page.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE a gauge\na_b 3\na{lane=\"live\"} 4\na{lane=\"back log\"} 6\na 5.5\n";

    #[test]
    fn samples_are_found_by_their_whole_name() {
        let found = [sample(PAGE, "a"), sample(PAGE, "a{lane=\"live\"}"), sample(PAGE, "b")];
        assert_eq!(found, [Some(5.5), Some(4.0), None]);
    }

    #[test]
    fn samples_of_a_name_are_found_whatever_their_labels() {
        assert_eq!(samples(PAGE, "a"), [4.0, 6.0, 5.5]);
        assert_eq!((samples(PAGE, "a_b"), samples(PAGE, "b")), (vec![3.0], Vec::new()));
    }
}
