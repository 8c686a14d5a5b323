// SPDX-License-Identifier: GPL-2.0-only
//! What times say. A round of a point counts as one value, its median: times of one round share whatever disturbed it.

use crate::rng::Rng;

/// Resamplings for a confidence interval.
const RESAMPLINGS: usize = 2000;

/// Median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub median: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Spread {
    /// Of values in any order, of which there is one at least.
    pub fn of(values: &[f64]) -> Spread {
        let values = sorted(values);
        let [lower, median, upper] = [0.25, 0.5, 0.75].map(|share| quantile(&values, share));
        Spread { median, lower, upper }
    }

    /// Half the distance between the quartiles, as a share of the median.
    pub fn relative(&self) -> f64 {
        (self.upper - self.lower) / 2.0 / self.median
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// The value of `all` at `share` between its lowest (0) and its highest (1), which lie in order. NaN where there is none.
fn quantile(all: &[f64], share: f64) -> f64 {
    let at = share * all.len().saturating_sub(1) as f64;
    let (below, above) = (all.get(at.floor() as usize), all.get(at.ceil() as usize));
    match (below, above) {
        (Some(below), Some(above)) => below + (above - below) * at.fract(),
        _ => f64::NAN,
    }
}

/// The median of values in any order.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(&sorted(values), 0.5)
}

/// A line through costs: what a call costs by itself, and what each page or fragment adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    pub fixed: f64,
    pub each: f64,
    /// The largest distance of a point from the line, as a share of the point.
    pub worst: f64,
}

/// Fits a line by least squares of the relative distances, so that small sizes count as much as large ones. None from
/// fewer than two sizes.
pub(super) fn fit(points: &[(f64, f64)]) -> Option<Line> {
    let (mut w, mut wx, mut wy, mut wxx, mut wxy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (x, y) in points {
        let weight = 1.0 / (y * y);
        w += weight;
        wx += weight * x;
        wy += weight * y;
        wxx += weight * x * x;
        wxy += weight * x * y;
    }
    let determinant = w * wxx - wx * wx;
    if points.len() < 2 || !determinant.is_normal() {
        return None;
    }
    let each = (w * wxy - wx * wy) / determinant;
    let fixed = (wy - each * wx) / w;
    let distance = |(x, y): &(f64, f64)| ((fixed + each * x - y) / y).abs();
    let worst = points.iter().map(distance).fold(0.0, f64::max);
    Some(Line { fixed, each, worst })
}

/// The rounds of one point, before and after.
pub(super) type Pair = (Vec<f64>, Vec<f64>);

/// The ratio after : before over all points of a series, the geometric mean of those of the medians, and its confidence
/// interval of 95 % (percentile bootstrap over rounds).
pub(super) fn ratio(points: &[Pair]) -> (f64, [f64; 2]) {
    let mean = |medians: &mut dyn Iterator<Item = (f64, f64)>| {
        (medians.map(|(before, after)| (after / before).ln()).sum::<f64>() / points.len() as f64)
            .exp()
    };
    let all = mean(&mut points.iter().map(|(before, after)| (median(before), median(after))));
    let mut rng = Rng::new(0, points.len() as u64);
    let mut resample = |values: &[f64]| -> f64 {
        let some: Vec<f64> = values.iter().map(|_| rng.pick(values)).collect();
        median(&some)
    };
    let ratios: Vec<f64> = (0..RESAMPLINGS)
        .map(|_| mean(&mut points.iter().map(|(b, a)| (resample(b), resample(a)))))
        .collect();
    let ratios = sorted(&ratios);
    (all, [0.025, 0.975].map(|share| quantile(&ratios, share)))
}

/// The probability that rounds differ so much, or more, when nothing differs: Mann and Whitney's test, two-sided, with the
/// points as strata (van Elteren), by the normal approximation with the correction for ties.
pub(super) fn p_value(points: &[Pair]) -> f64 {
    let (mut distance, mut variance) = (0.0, 0.0);
    for (before, after) in points {
        let (m, n) = (before.len() as f64, after.len() as f64);
        let mut wins = 0.0;
        for a in after {
            for b in before {
                wins += if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                };
            }
        }
        // Points of the same weight, however many rounds they have.
        let weight = 1.0 / (m + n + 1.0);
        let all = sorted(&[before.as_slice(), after].concat());
        let ties: f64 =
            all.chunk_by(|a, b| a == b).map(|tie| tie.len() as f64).map(|t| t * t * t - t).sum();
        let total = m + n;
        distance += weight * (wins - m * n / 2.0);
        if total > 1.0 {
            let corrected = total + 1.0 - ties / (total * (total - 1.0));
            variance += weight * weight * m * n / 12.0 * corrected;
        }
    }
    if variance <= 0.0 {
        return 1.0;
    }
    two_sided(distance / variance.sqrt())
}

/// The probability of a standard normal variable to be as far from 0 as `z`: Abramowitz and Stegun 7.1.26, to 1.5e-7.
fn two_sided(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let polynomial = series.into_iter().fold(0.0, |sum, factor| (sum + factor) * t);
    (polynomial * (-x * x).exp()).clamp(0.0, 1.0)
}

/// Which of several p-values say something at 5 % altogether: Holm's method, so that many series do not make one of them
/// stand out by chance.
pub(super) fn holm(p_values: &[f64]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut shown = vec![false; p_values.len()];
    for (rank, index) in order.into_iter().enumerate() {
        if p_values[index] > 0.05 / (p_values.len() - rank) as f64 {
            break;
        }
        shown[index] = true;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-3, "{found} instead of {expected}");
    }

    /// A line is found again, and what does not lie on it is said.
    #[test]
    fn lines_are_found() {
        let points: Vec<(f64, f64)> = [1.0, 4.0, 1024.0].map(|x| (x, 500.0 + 12.5 * x)).into();
        let line = fit(&points).unwrap();
        near(line.fixed, 500.0);
        near(line.each, 12.5);
        near(line.worst, 0.0);
        assert_eq!(fit(&points[..1]), None);
        assert!(fit(&[(1.0, 10.0), (2.0, 10.0), (3.0, 40.0)]).unwrap().worst > 0.2);
    }

    /// The values of R's wilcox.test(exact = FALSE, correct = FALSE), of an odd and of an even number of values, with ties.
    #[test]
    fn quantiles_and_p_values_are_the_known_ones() {
        assert_eq!(
            Spread::of(&[5.0, 1.0, 2.0, 4.0, 3.0]),
            Spread { median: 3.0, lower: 2.0, upper: 4.0 }
        );
        near(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let before = vec![1.0, 2.0, 3.0, 4.0, 5.0];
        near(p_value(&[(before.clone(), vec![6.0, 7.0, 8.0, 9.0, 10.0])]), 0.00902);
        near(p_value(&[(before.clone(), before.clone())]), 1.0);
        near(p_value(&[(vec![1.0, 2.0, 2.0, 3.0], vec![2.0, 3.0, 4.0, 4.0])]), 0.09942);
        near(p_value(&[(vec![1.0; 3], vec![1.0; 3])]), 1.0);
        // Two points that say the same say more than one.
        let pair = (before, vec![3.0, 4.0, 5.0, 6.0, 7.0]);
        assert!(p_value(&[pair.clone(), pair.clone()]) < p_value(&[pair]));
    }

    /// A ratio lies in its interval, which does not hold 1 when every round says otherwise and holds it when none does.
    #[test]
    fn ratios_have_intervals() {
        let rounds = |from: f64| -> Vec<f64> { (0..9).map(|n| from + f64::from(n)).collect() };
        let (all, [low, high]) =
            ratio(&[(rounds(100.0), rounds(200.0)), (rounds(1000.0), rounds(2000.0))]);
        assert!(1.9 < low && low <= all && all <= high && high < 2.1, "{all} [{low}, {high}]");
        let (all, [low, high]) = ratio(&[(rounds(100.0), rounds(100.0))]);
        assert!(low < 1.0 && 1.0 < high && all == 1.0);
    }

    /// One small p-value among many is nothing special; one that is small enough is.
    #[test]
    fn many_comparisons_are_corrected() {
        assert_eq!(holm(&[0.04]), [true]);
        assert_eq!(holm(&[0.5, 0.04, 0.3]), [false; 3]);
        assert_eq!(holm(&[0.5, 0.001, 0.02]), [false, true, true]);
        assert_eq!(holm(&[]), [false; 0]);
    }
}
