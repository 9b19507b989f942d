//! How an answer's tokens are chosen, as options of a command. Decimals become exact thousandths, which is
//! what transcripts commit to.

use clap::Args;
use dovetail_commitment::{SamplingParams, StopError, StopSequences};

/// The options. How long an answer may be is the command's own.
#[derive(Debug, Clone, Args)]
pub struct SamplingArguments {
    /// 0: always the likeliest token; 1: the model's own distribution. Up to 3 decimals, at most 2.
    #[arg(long, value_name = "X", default_value = "0", value_parser = temperature)]
    temperature: u32,
    /// Choose among the K likeliest tokens; 0: no such limit.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: u32,
    /// Choose among the likeliest tokens that together reach this probability; 1: no such limit.
    #[arg(long, value_name = "P", default_value = "1", value_parser = top_p)]
    top_p: u32,
    /// End the answer where it contains this text; up to 4 times, 64 bytes each.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Seed of the sampling: up to 64 hex digits, zeros are put in front. Random if left out.
    #[arg(long, value_name = "HEX", value_parser = seed)]
    pub seed: Option<Seed>,
}

impl SamplingArguments {
    /// The parameters for answers of this length at most, in tokens.
    pub fn params(&self, max_tokens: u32) -> SamplingParams {
        SamplingParams {
            temperature_milli: self.temperature,
            top_k: self.top_k,
            top_p_milli: self.top_p,
            max_tokens,
        }
    }

    /// Where answers end.
    ///
    /// # Errors
    /// Too many, an empty one, or one that is too long.
    pub fn stop(&self) -> Result<StopSequences, StopError> {
        let bytes = self.stop.iter().map(|stop| stop.clone().into_bytes());
        StopSequences::new(bytes.collect())
    }
}

/// 32 bytes of seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

fn seed(text: &str) -> Result<Seed, String> {
    if text.is_empty() || text.len() > 64 {
        return Err("a seed has 1 to 64 hex digits".into());
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(format!("{text:0>64}"), &mut bytes).map_err(|e| e.to_string())?;
    Ok(Seed(bytes))
}

fn temperature(text: &str) -> Result<u32, String> {
    match thousandths(text)? {
        milli @ 0..=2000 => Ok(milli),
        _ => Err("a temperature is between 0 and 2".into()),
    }
}

fn top_p(text: &str) -> Result<u32, String> {
    match thousandths(text)? {
        milli @ 1..=1000 => Ok(milli),
        _ => Err("a probability is above 0 and at most 1".into()),
    }
}

/// A decimal number with at most 3 decimals, in thousandths; exact, where a float would round.
fn thousandths(text: &str) -> Result<u32, String> {
    let wrong = || "a decimal number with at most 3 decimals, such as 0.7".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || decimals.len() > 3 || whole.len() > 4 {
        return Err(wrong());
    }
    if !is_digits(whole) || !is_digits(decimals) {
        return Err(wrong());
    }
    format!("{whole}{decimals:0<3}")
        .parse()
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_become_exact_thousandths() {
        for (text, milli) in [
            ("0", 0),
            ("0.7", 700),
            ("1", 1000),
            ("1.005", 1005),
            (".5", 500),
            ("2.", 2000),
        ] {
            assert_eq!(thousandths(text), Ok(milli), "{text}");
        }
        for text in ["", ".", "-1", "0.0001", "1e3", "one", "1.2.3", "+1"] {
            assert!(thousandths(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_seed_is_a_number_whose_zeros_in_front_may_be_left_out() {
        let parsed = seed("2a").map(|seed| seed.0);
        assert_eq!(
            parsed.map(|bytes| (bytes[31], bytes[..31] == [0; 31])),
            Ok((0x2a, true))
        );
        for text in ["", "zz", &"0".repeat(65)] {
            assert!(seed(text).is_err(), "{text}");
        }
    }
}
