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
    pub(crate) p25: f64,
    pub(crate) p75: f64,
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
        let (p25, p75) = (quantile(&sorted, 0.25), quantile(&sorted, 0.75));
        let spread = if median == 0.0 {
            0.0
        } else {
            ((p75 - p25) / median).abs()
        };
        Some(Self {
            median,
            p25,
            p75,
            spread,
        })
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

/// How one allocator stands against the best of several others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    /// The best by the medians of all samples.
    pub(crate) best: usize,
    /// Ours over the best's.
    pub(crate) ratio: f64,
}

/// `ours` against the least of `others` (index and samples, a sample for each repetition).
///
/// Of several noisy others the least is so by luck too. So the best is chosen on one half of the repetitions
/// and the ratio taken on the other half, both ways round; the result is their geometric mean.
/// With one repetition there are no halves and luck stays in.
pub(crate) fn standing<'a>(
    ours: &[f64],
    others: impl Iterator<Item = (usize, &'a [f64])>,
) -> Option<Standing> {
    let others: Vec<_> = others
        .filter(|(_, samples)| !samples.is_empty() && samples.len() == ours.len())
        .collect();
    let median = |samples: &[f64]| Summary::of(samples).map(|summary| summary.median);
    let least = |part: &dyn Fn(&[f64]) -> Vec<f64>| {
        let medians = others
            .iter()
            .filter_map(|(index, samples)| Some((*index, *samples, median(&part(samples))?)));
        medians.min_by(|(.., a), (.., b)| a.total_cmp(b))
    };
    let ratio = |ours: &[f64], theirs: &[f64]| {
        let (ours, theirs) = (median(ours)?, median(theirs)?);
        (theirs > 0.0 && ours > 0.0).then(|| ours / theirs)
    };
    let (best, samples, _) = least(&|samples| samples.to_vec())?;
    if ours.len() < 2 {
        return Some(Standing {
            best,
            ratio: ratio(ours, samples)?,
        });
    }
    let half = |parity: usize| {
        move |samples: &[f64]| samples.iter().skip(parity).step_by(2).copied().collect()
    };
    let mut ratios = Vec::new();
    for (choose, score) in [(half(0), half(1)), (half(1), half(0))] {
        let (_, chosen, _) = least(&choose)?;
        ratios.push(ratio(&score(ours), &score(chosen))?);
    }
    Some(Standing {
        best,
        ratio: geometric_mean(&ratios)?,
    })
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

    /// Nine peers that are as fast as we are must not look faster because one of them was lucky.
    #[test]
    fn the_best_of_many_equals_is_equal() {
        let mut word = 1_u64;
        let mut noise = || {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            1.0 + (word >> 40) as f64 / (1_u64 << 24) as f64 / 5.0
        };
        let mut logarithms = 0.0;
        const ROWS: usize = 400;
        for _ in 0..ROWS {
            let ours: Vec<f64> = (0..6).map(|_| noise()).collect();
            let others: Vec<Vec<f64>> = (0..9).map(|_| (0..6).map(|_| noise()).collect()).collect();
            let others = others.iter().map(Vec::as_slice).enumerate();
            logarithms += standing(&ours, others).expect("samples").ratio.ln();
        }
        let mean = (logarithms / ROWS as f64).exp();
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
    }

    #[test]
    fn the_best_is_named() {
        let others = [(3, &[2.0, 2.0][..]), (5, &[1.0, 1.0]), (7, &[])];
        let standing = standing(&[0.5, 0.5], others.into_iter()).expect("samples");
        assert_eq!(
            standing,
            Standing {
                best: 5,
                ratio: 0.5
            }
        );
    }
}
