// SPDX-License-Identifier: GPL-2.0-only
//! The time of day, and days of the calendar, in UTC.

use std::time::{Duration, SystemTime};

/// Seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// Milliseconds since 1970; 0 when the clock stands before.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0)
}

/// Today, `YYYY-MM-DD`.
pub fn today() -> String {
    // A clock before 1970 is as wrong as one at its first second.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    civil(now)[..10].to_string()
}

/// A moment, given as the time since 1970, as RFC 3339 has it: `YYYY-MM-DDTHH:MM:SSZ`.
pub fn civil(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, second) = (seconds / DAY, seconds % DAY);
    // Years that begin in March, so that the leap day is the last: 400 of them are always 146097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days are those of the calendar, leap days included.
    #[test]
    fn days() {
        let day = |seconds| civil(Duration::from_secs(seconds));
        assert_eq!(day(0), "1970-01-01T00:00:00Z");
        assert_eq!(day(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(day(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(day(1_798_761_599), "2026-12-31T23:59:59Z");
        assert_eq!(day(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
