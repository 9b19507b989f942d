//! Days, and the unambiguous ways in which documents write them.

use crate::rng::Rng;

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

/// A day. Days stop at the 28th, so that adding months never needs a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    year: u32,
    month: u32,
    day: u32,
}

impl Date {
    /// A day of the years 2018 to 2031.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            year: rng.between(2018, 2031),
            month: rng.between(1, 12),
            day: rng.between(1, 28),
        }
    }

    /// The same day of the next month.
    #[must_use]
    pub(crate) fn next_month(self) -> Self {
        if self.month == 12 {
            Self {
                year: self.year + 1,
                month: 1,
                ..self
            }
        } else {
            Self {
                month: self.month + 1,
                ..self
            }
        }
    }

    /// A later day of the same month if there is one, else of the next.
    #[must_use]
    pub(crate) fn days_later(self, days: u32) -> Self {
        let day = self.day + days;
        if day <= 28 {
            Self { day, ..self }
        } else {
            Self {
                day: day - 28,
                ..self
            }
            .next_month()
        }
    }

    /// `YYYY-MM-DD`, as answers write it.
    #[must_use]
    pub(crate) fn iso(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// As a document of that style writes it.
    #[must_use]
    pub(crate) fn written(self, style: DateStyle) -> String {
        let Self { year, month, day } = self;
        let name = MONTHS[(month as usize - 1) % MONTHS.len()];
        let short = &name[..3];
        match style {
            DateStyle::Iso => self.iso(),
            DateStyle::Dots => format!("{day:02}.{month:02}.{year}"),
            DateStyle::DayMonth => format!("{day:02} {name} {year}"),
            DateStyle::MonthDay => format!("{name} {day:02}, {year}"),
            DateStyle::ShortMonthDay => format!("{short} {day:02}, {year}"),
            DateStyle::ShortDashes => format!("{day:02}-{short}-{year}"),
        }
    }
}

/// How a document writes its dates. `03/04/2025` is not among them: nobody can tell what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DateStyle {
    /// 2025-03-12
    Iso,
    /// 12.03.2025
    Dots,
    /// 12 March 2025
    DayMonth,
    /// March 12, 2025
    MonthDay,
    /// Mar 12, 2025
    ShortMonthDay,
    /// 12-Mar-2025
    ShortDashes,
}

impl DateStyle {
    const ALL: [Self; 6] = [
        Self::Iso,
        Self::Dots,
        Self::DayMonth,
        Self::MonthDay,
        Self::ShortMonthDay,
        Self::ShortDashes,
    ];

    /// One of the styles.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self::ALL[rng.index(Self::ALL.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::{Date, DateStyle};

    #[test]
    fn styles_write_one_day_in_their_ways() {
        let day = Date {
            year: 2025,
            month: 3,
            day: 7,
        };
        assert_eq!(day.written(DateStyle::Iso), "2025-03-07");
        assert_eq!(day.written(DateStyle::Dots), "07.03.2025");
        assert_eq!(day.written(DateStyle::MonthDay), "March 07, 2025");
        assert_eq!(day.written(DateStyle::ShortDashes), "07-Mar-2025");
    }

    #[test]
    fn december_is_followed_by_january() {
        let day = Date {
            year: 2025,
            month: 12,
            day: 20,
        };
        assert_eq!(day.days_later(14).iso(), "2026-01-06");
    }
}
