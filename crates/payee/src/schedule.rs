//! When a payee wants to be paid: as it earns, or at most once a day or a week.

use std::fmt;
use std::str::FromStr;

const DAY_H: u16 = 24;
const WEEK_H: u16 = 7 * DAY_H;
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// When a payee is paid, in UTC. As text: `as-earned`, `daily@06`, `weekly@mon@06`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Schedule {
    /// As soon as it has enough.
    #[default]
    AsEarned,
    /// At most once a day that begins at this hour, 0 to 23.
    Daily {
        /// The hour.
        hour: u8,
    },
    /// At most once a week that begins on this weekday at this hour.
    Weekly {
        /// 0 is Monday, 6 Sunday.
        weekday: u8,
        /// The hour.
        hour: u8,
    },
}

/// The text names no schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a schedule is as-earned, daily@HH or weekly@DAY@HH, with HH from 00 to 23 and DAY from mon to sun, in UTC"
)]
pub struct ScheduleError;

impl Schedule {
    /// Its length and when it begins, in hours behind a Monday's midnight; `None` without one.
    pub fn period_h(self) -> Option<(u16, u16)> {
        match self {
            Self::AsEarned => None,
            Self::Daily { hour } => Some((DAY_H, hour.into())),
            Self::Weekly { weekday, hour } => {
                Some((WEEK_H, u16::from(weekday) * DAY_H + u16::from(hour)))
            }
        }
    }

    /// The schedule with this period.
    pub fn of_period_h(period: Option<(u16, u16)>) -> Option<Self> {
        let Some((length, begins)) = period else {
            return Some(Self::AsEarned);
        };
        let part = |of: u16| u8::try_from(of).ok();
        match length {
            DAY_H if begins < DAY_H => Some(Self::Daily {
                hour: part(begins)?,
            }),
            WEEK_H if begins < WEEK_H => Some(Self::Weekly {
                weekday: part(begins / DAY_H)?,
                hour: part(begins % DAY_H)?,
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AsEarned => f.write_str("as-earned"),
            Self::Daily { hour } => write!(f, "daily@{hour:02}"),
            Self::Weekly { weekday, hour } => {
                let day = WEEKDAYS.get(usize::from(weekday)).unwrap_or(&"mon");
                write!(f, "weekly@{day}@{hour:02}")
            }
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let hour = |text: &str| {
            let is_number =
                (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            let hour: u8 = text.parse().map_err(|_| ScheduleError)?;
            (is_number && hour < 24)
                .then_some(hour)
                .ok_or(ScheduleError)
        };
        let parts: Vec<&str> = text.splitn(4, '@').collect();
        match parts[..] {
            ["as-earned"] => Ok(Self::AsEarned),
            ["daily", at] => Ok(Self::Daily { hour: hour(at)? }),
            ["weekly", day, at] => {
                let weekday = WEEKDAYS.iter().position(|known| *known == day);
                Ok(Self::Weekly {
                    weekday: weekday
                        .and_then(|weekday| u8::try_from(weekday).ok())
                        .ok_or(ScheduleError)?,
                    hour: hour(at)?,
                })
            }
            _ => Err(ScheduleError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_come_back_from_their_text_and_from_their_period() {
        let mut all = vec![Schedule::AsEarned];
        for hour in 0..24 {
            all.push(Schedule::Daily { hour });
            all.extend((0..7).map(|weekday| Schedule::Weekly { weekday, hour }));
        }
        for schedule in all {
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
            assert_eq!(Schedule::of_period_h(schedule.period_h()), Some(schedule));
        }
        assert_eq!("daily@6".parse(), Ok(Schedule::Daily { hour: 6 }));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "daily",
            "daily@24",
            "daily@+1",
            "daily@001",
            "weekly@6",
            "weekly@day@6",
            "weekly@mon@6@1",
            "As-earned",
        ] {
            assert_eq!(text.parse::<Schedule>(), Err(ScheduleError), "{text}");
        }
        assert_eq!(Schedule::of_period_h(Some((24, 24))), None);
        assert_eq!(Schedule::of_period_h(Some((48, 0))), None);
    }
}
