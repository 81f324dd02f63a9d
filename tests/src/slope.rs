//! Whether something grows: the slope of the straight line through what was seen of it in the second half of the time; the first half
//! is for caches to fill. Knows nothing of what was looked at.

use std::time::Duration;

/// From so many looks on a slope means something.
pub const LOOKS_MIN: usize = 30;

/// What a second adds to what was seen at these times, by least squares over the second half of the looks; `None` for too few.
#[must_use]
pub fn slope(looks: &[(Duration, u64)]) -> Option<f64> {
    if looks.len() < LOOKS_MIN {
        return None;
    }
    let second = looks.iter().skip(looks.len() / 2).map(|(at, seen)| (at.as_secs_f64(), *seen as f64));
    let count = second.clone().count() as f64;
    let (x_sum, y_sum) = second.clone().fold((0.0, 0.0), |(x_sum, y_sum), (x, y)| (x_sum + x, y_sum + y));
    let points = second.map(|(x, y)| (x - x_sum / count, y - y_sum / count));
    let (above, below) = points.fold((0.0, 0.0), |(above, below), (x, y)| (above + x * y, below + x * x));
    (below > 0.0).then_some(above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_second_half_by_its_times() {
        let at = |look: u64| Duration::from_secs(look * 2);
        let flat: Vec<(Duration, u64)> = (0..60).map(|look| (at(look), 5)).collect();
        assert_eq!(slope(&flat[..LOOKS_MIN - 1]), None);
        assert_eq!(slope(&flat), Some(0.0));
        assert_eq!(slope(&[(at(1), 5); 60]), None, "all in one moment");
        let filling = (0..60).map(|look| (at(look), if look < 30 { look * 100 } else { 3000 + look * 2 }));
        let found = slope(&filling.collect::<Vec<_>>()).unwrap();
        assert!((found - 1.0).abs() < 1e-9, "{found}");
    }
}
