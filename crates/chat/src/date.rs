//! `strftime_now`: the day on which a conversation is held, in the forms that templates ask for.

use minijinja::{Error, ErrorKind};

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
const DAYS: [&str; 7] = [
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

/// A moment in UTC, in seconds since 1970.
pub(super) fn strftime(unix_s: u64, format: &str) -> Result<String, Error> {
    let days = unix_s / 86_400;
    let (year, month, day) = civil(days);
    let month_name = MONTHS[month - 1];
    let day_name = DAYS[(days % 7) as usize];
    let (hour, minute, second) = (unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60);
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => text.push_str(&year.to_string()),
            Some('m') => text.push_str(&format!("{month:02}")),
            Some('d') => text.push_str(&format!("{day:02}")),
            Some('B') => text.push_str(month_name),
            Some('b') => text.push_str(&month_name[..3]),
            Some('A') => text.push_str(day_name),
            Some('a') => text.push_str(&day_name[..3]),
            Some('H') => text.push_str(&format!("{hour:02}")),
            Some('M') => text.push_str(&format!("{minute:02}")),
            Some('S') => text.push_str(&format!("{second:02}")),
            Some('%') => text.push('%'),
            _ => {
                let reason = "strftime_now knows %Y %m %d %B %b %A %a %H %M %S";
                return Err(Error::new(ErrorKind::InvalidOperation, reason));
            }
        }
    }
    Ok(text)
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar: years begin in March, so
/// that the leap day is the last, and 400 of them have 146,097 days.
fn civil(days: u64) -> (u64, usize, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month as usize, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (unix_s, text) in [
            (0, "1970-01-01 Thursday"),
            (951_782_400, "2000-02-29 Tuesday"),
            (1_735_689_599, "2024-12-31 Tuesday"),
            (4_107_542_400, "2100-03-01 Monday"),
        ] {
            assert_eq!(strftime(unix_s, "%Y-%m-%d %A").unwrap(), text);
        }
        assert_eq!(
            strftime(1_721_995_200, "%d %b %Y, %H:%M:%S 100%%").unwrap(),
            "26 Jul 2024, 12:00:00 100%"
        );
        assert!(strftime(0, "%Q").is_err());
    }
}
