//! Days, and the ways in which people write them.

use super::labels::Labels;
use crate::rng::Rng;

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) year: u32,
    /// 1 to 12.
    pub(super) month: u32,
    /// 1 to what the month has.
    pub(super) day: u32,
}

impl Day {
    /// A day of the years 2015 to 2032; small days as often as large ones.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let (year, month) = (rng.between(2015, 2032), rng.between(1, 12));
        let day = if rng.chance(35) {
            rng.between(1, 9)
        } else {
            rng.between(1, days_of(year, month))
        };
        Self { year, month, day }
    }

    /// So many days later.
    #[must_use]
    pub(super) fn later(mut self, days: u32) -> Self {
        self.day += days;
        while self.day > days_of(self.year, self.month) {
            self.day -= days_of(self.year, self.month);
            self.month += 1;
            if self.month > 12 {
                (self.month, self.year) = (1, self.year + 1);
            }
        }
        self
    }

    /// `YYYY-MM-DD`, as answers write it.
    #[must_use]
    pub(super) fn iso(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// As a paper of that form and language writes it.
    #[must_use]
    pub(super) fn written(self, form: DayForm, labels: &Labels) -> String {
        let Self { year, month, day } = self;
        let index = (month as usize - 1) % 12;
        let (name, short) = (labels.months[index], labels.months_short[index]);
        let short_year = year % 100;
        match form {
            DayForm::Iso => self.iso(),
            DayForm::IsoSlashes => format!("{year}/{month:02}/{day:02}"),
            DayForm::Joined(mark) => format!("{day:02}{mark}{month:02}{mark}{year}"),
            DayForm::JoinedPlain(mark) => format!("{day}{mark}{month}{mark}{year}"),
            DayForm::JoinedShort(mark) => format!("{day:02}{mark}{month:02}{mark}{short_year:02}"),
            DayForm::MonthFirst => format!("{month:02}/{day:02}/{year}"),
            DayForm::MonthFirstPlain => format!("{month}/{day}/{year}"),
            DayForm::Named => labels.named_day(day, name, year),
            DayForm::NamedPadded => format!("{day:02} {name} {year}"),
            DayForm::NamedUpper => format!("{day} {} {year}", name.to_uppercase()),
            DayForm::Short => format!("{day} {short} {year}"),
            DayForm::ShortDashes => format!("{day:02}-{short}-{year}"),
            DayForm::ShortDashesYear => format!("{day}-{short}-{short_year:02}"),
            DayForm::MonthDay => format!("{name} {day}, {year}"),
            DayForm::MonthDayPadded => format!("{name} {day:02}, {year}"),
            DayForm::ShortMonthDay => format!("{short} {day}, {year}"),
            DayForm::Ordinal => format!("{day}{} {name} {year}", ending(day)),
            DayForm::MonthOrdinal => format!("{name} {day}{}, {year}", ending(day)),
        }
    }
}

/// A way to write a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DayForm {
    /// 2026-05-07
    Iso,
    /// 2026/05/07
    IsoSlashes,
    /// 07.05.2026, 07/05/2026, 07-05-2026
    Joined(char),
    /// 7.5.2026
    JoinedPlain(char),
    /// 07.05.26
    JoinedShort(char),
    /// 05/07/2026
    MonthFirst,
    /// 5/7/2026
    MonthFirstPlain,
    /// 7 May 2026, 7. Mai 2026, 7 de mayo de 2026
    Named,
    /// 07 May 2026
    NamedPadded,
    /// 7 MAY 2026
    NamedUpper,
    /// 7 Apr 2026
    Short,
    /// 07-Apr-2026
    ShortDashes,
    /// 7-Apr-26
    ShortDashesYear,
    /// May 7, 2026
    MonthDay,
    /// May 07, 2026
    MonthDayPadded,
    /// Apr 7, 2026
    ShortMonthDay,
    /// 7th May 2026
    Ordinal,
    /// May 7th, 2026
    MonthOrdinal,
}

/// What English puts behind a day's number.
fn ending(day: u32) -> &'static str {
    match (day % 10, day / 10) {
        (_, 1) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    }
}

/// The days of that month.
fn days_of(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::{Language, labels};
    use super::*;

    const DAY: Day = Day {
        year: 2026,
        month: 5,
        day: 7,
    };

    #[test]
    fn one_day_is_written_in_many_ways() {
        let english = labels(Language::English);
        for (form, written) in [
            (DayForm::JoinedPlain('.'), "7.5.2026"),
            (DayForm::JoinedShort('/'), "07/05/26"),
            (DayForm::MonthFirstPlain, "5/7/2026"),
            (DayForm::Named, "7 May 2026"),
            (DayForm::Ordinal, "7th May 2026"),
            (DayForm::MonthDay, "May 7, 2026"),
        ] {
            assert_eq!(DAY.written(form, english), written);
        }
        assert_eq!(
            DAY.written(DayForm::Named, labels(Language::German)),
            "7. Mai 2026"
        );
        assert_eq!(
            DAY.written(DayForm::Named, labels(Language::Spanish)),
            "7 de mayo de 2026"
        );
    }

    #[test]
    fn a_day_after_the_last_of_february_is_in_march() {
        let day = Day {
            year: 2028,
            month: 2,
            day: 29,
        };
        assert_eq!(day.later(1).iso(), "2028-03-01");
        assert_eq!(day.later(400).iso(), "2029-04-04");
    }
}
