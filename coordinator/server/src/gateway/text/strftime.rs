//! Dates as Python's `strftime` writes them, in UTC, for the templates that tell a model what day it is.
//!
//! Owns the directives that chat templates use. Refuses time zones and locales: a prompt must not depend on the machine that
//! rendered it. Unknown directives stay as they are, as in the C library.

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `unix_s` seconds after the epoch, written as `format` says.
pub(crate) fn strftime(unix_s: u64, format: &str) -> String {
    let moment = Moment::of(unix_s);
    let mut out = String::with_capacity(format.len() * 2);
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        // `%-d` is glibc's and macOS's way to leave the padding out.
        match chars.next() {
            Some('-') => match chars.next() {
                Some(directive) => {
                    let padded = moment.written(directive);
                    out.push_str(padded.strip_prefix('0').filter(|rest| !rest.is_empty()).unwrap_or(&padded));
                }
                None => out.push_str("%-"),
            },
            Some(directive) => out.push_str(&moment.written(directive)),
            None => out.push('%'),
        }
    }
    out
}

struct Moment {
    year: u64,
    month: u64,
    day: u64,
    day_of_year: u64,
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Moment {
    /// Civil date from days, after Howard Hinnant's `civil_from_days` (chrono-Compatible Low-Level Date Algorithms).
    fn of(unix_s: u64) -> Self {
        let days = unix_s / 86_400;
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = day_from_march - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let into_year = before.get(as_index(month - 1)).copied().unwrap_or(0);
        Self {
            year,
            month,
            day,
            day_of_year: into_year + day + u64::from(leap && month > 2),
            weekday: (days + 4) % 7,
            hour: unix_s / 3_600 % 24,
            minute: unix_s / 60 % 60,
            second: unix_s % 60,
        }
    }

    fn written(&self, directive: char) -> String {
        let weekday = WEEKDAYS.get(as_index(self.weekday)).copied().unwrap_or_default();
        let month = MONTHS.get(as_index(self.month - 1)).copied().unwrap_or_default();
        let half_day = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{half_day:02}"),
            'p' => (if self.hour < 12 { "AM" } else { "PM" }).to_owned(),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'B' => month.to_owned(),
            'b' | 'h' => month.chars().take(3).collect(),
            'A' => weekday.to_owned(),
            'a' => weekday.chars().take(3).collect(),
            'w' => self.weekday.to_string(),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            'T' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'D' => format!("{:02}/{:02}/{:02}", self.month, self.day, self.year % 100),
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            other => format!("%{other}"),
        }
    }
}

/// These numbers are below 367.
fn as_index(small: u64) -> usize {
    usize::try_from(small).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_as_python_writes_them() {
        // Each line was computed with Python's datetime in UTC.
        let cases = [
            (0, "%Y-%m-%d %H:%M:%S %a", "1970-01-01 00:00:00 Thu"),
            (951_782_400, "%d %b %Y, day %j", "29 Feb 2000, day 060"),
            (1_709_251_199, "%A %d %B %Y %I:%M %p", "Thursday 29 February 2024 11:59 PM"),
            (1_735_603_200, "%F %j %w", "2024-12-31 366 2"),
            (4_102_444_800, "%-d/%-m/%y", "1/1/00"),
            (1_763_942_400, "%d %b %Y", "24 Nov 2025"),
        ];
        for (unix_s, format, expected) in cases {
            assert_eq!(strftime(unix_s, format), expected, "{format}");
        }
    }

    #[test]
    fn what_is_no_directive_stays() {
        assert_eq!(strftime(0, "100%% of %Q, %"), "100% of %Q, %");
        assert_eq!(strftime(0, "%-"), "%-");
    }
}
