//! What hashes earn, as a number with a point: real rates are far below a millisatoshi for a million hashes.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// 10^-12, the last place of a rate.
const PLACES: u32 = 12;
const ONE: u64 = 10_u64.pow(PLACES);
/// A thousand satoshi for 2^20 hashes, in 10^-12 msat: far from what a share's credit holds, even at absurd targets.
const MAX: u64 = 1_000_000 * ONE;

/// A rate in 10^-12 msat for 2^20 expected hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashRate(u64);

impl HashRate {
    /// Whole millisatoshi for 2^20 hashes; at most a million.
    pub const fn whole(msat: u32) -> Self {
        let rate = msat as u64 * ONE;
        Self(if rate > MAX { MAX } else { rate })
    }

    /// 10^-12 msat for 2^20 hashes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

struct Rate;

impl Visitor<'_> for Rate {
    type Value = HashRate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of millisatoshi from 0 to 1000000, with twelve places behind the point at most")
    }

    fn visit_i64<E: Error>(self, whole: i64) -> Result<HashRate, E> {
        self.visit_str(&whole.to_string())
    }

    fn visit_u64<E: Error>(self, whole: u64) -> Result<HashRate, E> {
        self.visit_str(&whole.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<HashRate, E> {
        // The shortest digits that mean this double: what was written, up to fifteen digits. More are written as a text.
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HashRate, E> {
        let refused = || E::custom(format_args!("{text:?} is not {}", Expecting(&self)));
        let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(places) || places.len() > PLACES as usize {
            return Err(refused());
        }
        let places = format!("{places:0<width$}", width = PLACES as usize);
        let whole: u64 = whole.parse().map_err(|_| refused())?;
        let places: u64 = places.parse().map_err(|_| refused())?;
        let rate = whole
            .checked_mul(ONE)
            .and_then(|rate| rate.checked_add(places));
        let rate = rate.filter(|rate| *rate <= MAX).ok_or_else(refused)?;
        Ok(HashRate(rate))
    }
}

struct Expecting<'a>(&'a Rate);

impl fmt::Display for Expecting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

impl<'de> Deserialize<'de> for HashRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        rate: HashRate,
    }

    fn rate(text: &str) -> Option<u64> {
        let file: Result<File, _> = toml::from_str(&format!("rate = {text}"));
        file.ok().map(|file| file.rate.get())
    }

    #[test]
    fn whole_numbers_fractions_and_texts_are_taken_exactly() {
        assert_eq!(rate("10"), Some(HashRate::whole(10).get()));
        assert_eq!(rate("5e-7"), Some(500_000));
        assert_eq!(rate("0.0000005"), Some(500_000));
        assert_eq!(rate("\"0.000000000001\""), Some(1));
        assert_eq!(rate("0.1"), Some(100_000_000_000));
        assert_eq!(rate("0"), Some(0));
        assert_eq!(rate("1000000"), Some(MAX));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in [
            "-1",
            "1000000.1",
            "nan",
            "inf",
            "\"0.0000000000001\"",
            "\"1,5\"",
            "\".\"",
            "true",
            "1e300",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }
}
