//! One measured value with its name and labels, as shells hand it over to be shown under `metrics`. Knows no format.

/// One value at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Name as Prometheus wants it, for example `perigee_writer_lag_seconds`.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Whether it only ever rises while the process lives.
    pub counter: bool,
    /// Labels in order.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

/// A count as the floating point number that metrics are; exact up to 2^53.
#[must_use]
pub fn as_value(count: u64) -> f64 {
    const HALF: f64 = 4_294_967_296.0;
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * HALF + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_keep_their_value() {
        assert_eq!(as_value(0), 0.0);
        assert_eq!(as_value(9_007_199_254_740_992), 9_007_199_254_740_992.0);
        assert_eq!(as_value(4_294_967_297), 4_294_967_297.0);
    }
}
