//! Medians, quartiles, geometric means.

/// Quantile `q` of at least one sample, by linear interpolation.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    /// (p75 - p25) / median, or 0 where the median is 0.
    pub(crate) spread: f64,
}

impl Summary {
    /// `None` without samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let range = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        let spread = if median == 0.0 {
            0.0
        } else {
            (range / median).abs()
        };
        Some(Self { median, spread })
    }
}

/// `None` without values, or where one is not positive.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|&value| value <= 0.0) {
        return None;
    }
    let logarithms: f64 = values.iter().map(|value| value.ln()).sum();
    Some((logarithms / values.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_interpolates_quartiles() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0, 5.0]).expect("there are samples");
        assert_eq!(summary.median, 3.0);
        assert!((summary.spread - 2.0 / 3.0).abs() < 1e-12, "{summary:?}");
        assert_eq!(
            Summary::of(&[1.0, 2.0]).map(|summary| summary.median),
            Some(1.5)
        );
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn geometric_mean_of_inverses_is_one() {
        let mean = geometric_mean(&[2.0, 0.5]).expect("positive");
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(geometric_mean(&[1.0, 0.0]), None);
    }
}
