//! Formats times and numbers for people.

use std::time::SystemTime;

/// The steps of a time axis from one second on, in seconds.
const CLOCK: [u64; 12] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];
const SECOND: u64 = 1_000_000;

/// Returns the distance of at most `most` ticks on a time axis: 1, 2 or 5 with zeros up to a
/// second, then the divisions of a clock, then hours.
pub(super) fn step(span: u64, most: u64) -> u64 {
    let wanted = span.div_ceil(most.max(1)).max(1);
    let below_a_second = (0..6).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10_u64.pow(zeros)));
    let clock = CLOCK.iter().map(|seconds| seconds * SECOND);
    let hours = wanted.div_ceil(3600 * SECOND) * 3600 * SECOND;
    below_a_second.chain(clock).find(|step| *step >= wanted).unwrap_or(hours)
}

/// Returns the distance of ticks on an axis of counts.
pub(super) fn count_step(highest: usize, most: usize) -> usize {
    let wanted = highest.div_ceil(most.max(1)).max(1);
    let steps = (0..18).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10_usize.pow(zeros)));
    steps.into_iter().find(|step| *step >= wanted).unwrap_or(wanted)
}

/// Formats a tick of an axis with that step.
pub(super) fn tick(time: u64, step: u64) -> String {
    let seconds = time / SECOND;
    if time == 0 {
        return "0".to_owned();
    }
    if time >= 60 * SECOND && step >= SECOND {
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        return match minutes / 60 {
            0 => format!("{minutes}:{seconds:02} min"),
            hours => format!("{hours}:{:02} h", minutes % 60),
        };
    }
    let (unit, of_unit) = if step >= 10_000 && time >= SECOND { ("s", SECOND) } else { ("ms", 1000) };
    let decimals =
        (0..6).find(|decimals| (step * 10_u64.pow(*decimals)).is_multiple_of(of_unit)).unwrap_or(6) as usize;
    format!("{:.decimals$} {unit}", time as f64 / of_unit as f64)
}

/// Formats a time with two or three significant digits.
pub(super) fn duration(microseconds: u64) -> String {
    let ms = microseconds as f64 / 1e3;
    match microseconds {
        0..9_950 => format!("{ms:.1} ms"),
        9_950..999_500 => format!("{ms:.0} ms"),
        999_500..9_995_000 => format!("{:.2} s", ms / 1e3),
        9_995_000..59_950_000 => format!("{:.1} s", ms / 1e3),
        _ => {
            let seconds = (microseconds + SECOND / 2) / SECOND;
            match seconds / 3600 {
                0 => format!("{} min {} s", seconds / 60, seconds % 60),
                hours => format!("{hours} h {} min", seconds / 60 % 60),
            }
        }
    }
}

/// Formats the age of a time.
pub(super) fn ago(time: SystemTime) -> String {
    match time.elapsed().unwrap_or_default().as_secs() {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// Formats `1 sandbox`, `2 sandboxes`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Replaces characters that terminals obey or XML forbids.
pub(super) fn printable(text: &str) -> String {
    let allowed = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if allowed(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        for (span, expected) in [
            (0, 1),
            (7, 1),
            (950, 100),
            (100_000, 10_000),
            (1_900_000, 200_000),
            (38 * SECOND, 5 * SECOND),
            (100 * SECOND, 10 * SECOND),
            (125 * SECOND, 15 * SECOND),
            (40 * 60 * SECOND, 300 * SECOND),
            (50 * 3600 * SECOND, 5 * 3600 * SECOND),
        ] {
            assert_eq!(step(span, 10), expected, "{span}");
        }
        assert_eq!([1, 9, 30, 2000].map(|highest| count_step(highest, 4)), [1, 5, 10, 500]);
    }

    #[test]
    fn ticks_have_the_unit_of_their_step() {
        for (time, step, expected) in [
            (0, 5, "0"),
            (500, 100, "0.5 ms"),
            (20_000, 10_000, "20 ms"),
            (1_200_000, 200_000, "1.2 s"),
            (5 * SECOND, 5 * SECOND, "5 s"),
            (75 * SECOND, 15 * SECOND, "1:15 min"),
            (3600 * SECOND, 600 * SECOND, "1:00 h"),
        ] {
            assert_eq!(tick(time, step), expected);
        }
    }

    #[test]
    fn times_have_significant_digits() {
        for (time, expected) in [
            (40, "0.0 ms"),
            (3_249, "3.2 ms"),
            (9_949, "9.9 ms"),
            (9_960, "10 ms"),
            (118_400, "118 ms"),
            (999_600, "1.00 s"),
            (12_340_000, "12.3 s"),
            (59_960_000, "1 min 0 s"),
            (3 * 3600 * SECOND + 125 * SECOND, "3 h 2 min"),
        ] {
            assert_eq!(duration(time), expected);
        }
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\u{1b}[2Jb\u{0}\n\u{202e}é✓"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}é✓");
    }

    proptest! {
        #[test]
        fn ticks_are_at_most_as_many_as_requested(span in 0_u64..1 << 50, most in 1_u64..20) {
            prop_assert!(span / step(span, most) <= most);
        }

        #[test]
        fn any_time_is_formatted(time: u64, step in 1_u64..1 << 40) {
            prop_assert!(!tick(time, step).is_empty() && !duration(time).is_empty());
        }
    }
}
