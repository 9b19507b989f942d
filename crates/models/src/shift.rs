//! Powers of two that keep values within the engine's range. The norms make the scale of the residual stream free, and the
//! feed-forward layers are linear in their up projection: the stream is divided by 2^r, the up projection of a layer
//! by 2^u and its down projection by 2^(r - u). Only exponents of scales change, so nothing is rounded a second time.
//!
//! r and u follow from what the finished model does on a text of the importer's own. The engine runs it, in
//! integers, so every machine finds the same ones.

use dovetail_engine::{Model, Parts, Range, Ranges, Runtime, Stored, measure_ranges};

use crate::error::ImportError;
use crate::import::{EMBEDDING, ImportOptions, tensor_name};
use crate::sample;

/// The largest r and the largest u: with them the engine's range is that of 65,504, the largest of a half.
pub(crate) const RESIDUAL_SHIFT_MAX: u32 = 3;
pub(crate) const GATE_SHIFT_MAX: u32 = 6;
/// One run at the largest shifts, one that confirms the choice, and some that raise what it did not.
const ROUNDS_MAX: usize = 5;
/// Weights of the embedding that are smaller, in units of the engine, lose more by rounding than by int8.
const UNITS_MIN: f64 = 32.0;
/// The largest exponent of a scale.
const EXPONENT_MAX: u8 = 40;

/// By how many bits values are lowered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shifts {
    /// r, of the residual stream.
    pub(crate) residual: u32,
    /// u, of each layer's up projection.
    pub(crate) gate: Vec<u32>,
}

/// Chooses the shifts of a model whose tensors have the largest ones, unless they are given, brings the tensors to them,
/// and says what is stored on the way then. `adapt` brings to r what does not follow from a scale's exponent.
pub(crate) fn settle(
    parts: &mut Parts,
    options: &ImportOptions,
    adapt: impl Fn(&mut Parts, u32) -> Result<(), ImportError>,
) -> Result<(Shifts, [Range; 9]), ImportError> {
    let runtime = Runtime::new(0)?;
    let mut shifts = Shifts {
        residual: RESIDUAL_SHIFT_MAX,
        gate: vec![GATE_SHIFT_MAX; parts.architecture.layers],
    };
    let residual_max = largest_held(|shift| adapt(parts, shift))?;
    if residual_max < shifts.residual {
        let held = Shifts {
            residual: residual_max,
            gate: shifts.gate.clone(),
        };
        move_to(parts, &shifts, &held)?;
        shifts = held;
    }
    let mut found = None;
    for round in 0..ROUNDS_MAX {
        let ranges = measure(&runtime, parts)?;
        let next = Choice {
            ranges: &ranges,
            parts,
            now: &shifts,
            options,
            residual_max,
            lower: round == 0,
        }
        .shifts();
        if next == shifts {
            found = Some(ranges.all());
            break;
        }
        move_to(parts, &shifts, &next)?;
        adapt(parts, next.residual)?;
        shifts = next;
    }
    let found = match found {
        Some(ranges) => ranges,
        None => measure(&runtime, parts)?.all(),
    };
    Ok((shifts, found))
}

/// The largest r that the file can hold, brought about: what does not follow from a scale's exponent may have no room for
/// a larger one.
fn largest_held(mut adapt: impl FnMut(u32) -> Result<(), ImportError>) -> Result<u32, ImportError> {
    for shift in (1..=RESIDUAL_SHIFT_MAX).rev() {
        if adapt(shift).is_ok() {
            return Ok(shift);
        }
    }
    adapt(0).map(|()| 0)
}

/// What shifts are chosen by.
struct Choice<'a> {
    ranges: &'a Ranges,
    parts: &'a Parts,
    now: &'a Shifts,
    options: &'a ImportOptions,
    /// The largest r that the file can hold. What is cut off with it is told.
    residual_max: u32,
    /// Later rounds only raise shifts, so that they come to an end.
    lower: bool,
}

impl Choice<'_> {
    fn shifts(&self) -> Shifts {
        let residual = self.residual();
        let layers = self.now.gate.iter().enumerate();
        let gate = layers
            .map(|(layer, now)| self.gate(layer, *now, residual))
            .collect();
        Shifts { residual, gate }
    }

    fn residual(&self) -> u32 {
        let now = self.now.residual;
        let peak = self.ranges.of(Stored::Residual).peak_q16;
        let least = shift_for(Stored::Residual, peak, now);
        let shift = self
            .options
            .residual_shift
            .unwrap_or(self.at_least(least, now).min(self.residual_max));
        let exponent = self.least_exponent(&residual_scales(self.parts));
        shift.max(now.saturating_sub(exponent))
    }

    fn gate(&self, layer: usize, now: u32, residual: u32) -> u32 {
        let peak = |stored| self.ranges.of_layer(stored, layer).peak_q16;
        let peak = peak(Stored::Up).max(peak(Stored::GateProduct));
        let least = self.at_least(shift_for(Stored::GateProduct, peak, now), now);
        let shift = self.options.gate_shift.unwrap_or(least);
        // What u takes from the up projection, it gives to the down projection.
        let exponent = |part: &str| self.least_exponent(&[scale_name(layer, part)]);
        let most = exponent("mlp.down_proj") + residual + now;
        let most = most.saturating_sub(self.now.residual);
        let least = now.saturating_sub(exponent("mlp.up_proj"));
        shift.max(least).min(most)
    }

    fn at_least(&self, least: u32, now: u32) -> u32 {
        if self.lower { least } else { least.max(now) }
    }

    /// Scales lie below 2, so none can be raised by more than this.
    fn least_exponent(&self, scales: &[String]) -> u32 {
        let scales = scales
            .iter()
            .filter_map(|name| self.parts.tensors.get(name));
        let scales = scales.flat_map(|bytes| bytes.as_chunks::<4>().0);
        let used = scales.filter(|scale| **scale != [0; 4]);
        let least = used.map(|scale| u32::from(scale[3])).min();
        least.unwrap_or(u32::from(EXPONENT_MAX))
    }
}

/// The least shift at which a peak of this kind that was seen at the shift `at` lies below a quarter of the range: other
/// texts have larger ones.
fn shift_for(stored: Stored, peak_q16: u32, at: u32) -> u32 {
    let peak = u64::from(peak_q16) << at;
    let target = u64::from(stored.max_q16() / 4);
    let most = match stored {
        Stored::Residual => RESIDUAL_SHIFT_MAX,
        _ => GATE_SHIFT_MAX,
    };
    let fits = |shift: &u32| peak >> shift < target;
    (0..most).find(fits).unwrap_or(most)
}

fn scale_name(layer: usize, part: &str) -> String {
    tensor_name(layer, &format!("{part}.scale"))
}

/// The scales of what writes to the stream alone; the down projections have u as well.
fn residual_scales(parts: &Parts) -> Vec<String> {
    let outputs = (0..parts.architecture.layers).map(|layer| scale_name(layer, "self_attn.o_proj"));
    outputs.chain([scales_of(EMBEDDING)]).collect()
}

fn scales_of(weight: &str) -> String {
    weight.replace(".weight", ".scale")
}

/// Brings all scales from one choice to another.
fn move_to(parts: &mut Parts, from: &Shifts, to: &Shifts) -> Result<(), ImportError> {
    let difference = |to: u32, from: u32| i64::from(to) - i64::from(from);
    let residual = difference(to.residual, from.residual);
    let mut moves: Vec<(String, i64)> = residual_scales(parts)
        .into_iter()
        .map(|name| (name, residual))
        .collect();
    for (layer, (to, from)) in to.gate.iter().zip(&from.gate).enumerate() {
        let gate = difference(*to, *from);
        moves.push((scale_name(layer, "mlp.up_proj"), gate));
        moves.push((scale_name(layer, "mlp.down_proj"), residual - gate));
    }
    for (name, by) in moves {
        let scales = parts.tensors.get_mut(&name);
        let moved = scales.is_some_and(|scales| shift_scales(scales, by));
        if !moved {
            return Err(ImportError::TooLarge(name.replace(".scale", ".weight")));
        }
    }
    Ok(())
}

/// Divides little-endian scales by a power of two. Those that become too small for a scale become zero; false where one
/// becomes too large.
fn shift_scales(scales: &mut [u8], by: i64) -> bool {
    for scale in scales.as_chunks_mut::<4>().0 {
        if *scale == [0; 4] {
            continue;
        }
        match u8::try_from(i64::from(scale[3]) + by) {
            Ok(exponent) if exponent <= EXPONENT_MAX => scale[3] = exponent,
            // A row of weights below 2^-33 or so.
            Ok(_) => *scale = [0; 4],
            Err(_) => return false,
        }
    }
    true
}

/// What the model stores while it reads the importer's texts.
fn measure(runtime: &Runtime, parts: &Parts) -> Result<Ranges, ImportError> {
    let model = Model::from_parts(parts)?;
    let ranges = Ranges::new(&parts.architecture);
    for tokens in sample::sequences(&model) {
        measure_ranges(runtime, &model, &tokens, &ranges, drop)?;
    }
    Ok(ranges)
}

/// What to say of an embedding that the shift of the stream leaves few bits. `rms`: of its weights at the largest shift.
pub(crate) fn coarse_embedding(rms: f64, shift: u32) -> Option<String> {
    let units = rms * f64::from(1_u32 << (RESIDUAL_SHIFT_MAX - shift)) * 65_536.0;
    (units < UNITS_MIN).then(|| {
        format!(
            "the embedding is small beside the largest values of the residual stream; its weights are rounded to \
             some {:.1} % of their size",
            100.0 * 0.29 / units.max(0.29)
        )
    })
}

/// What to say of values that were cut off; nothing where none were.
pub fn saturation_notes(ranges: &[Range]) -> Vec<String> {
    let note = |range: &Range| {
        let (name, count, values) = (range.stored.name(), range.saturated, range.values);
        let bound = range.stored.max_q16() >> 16;
        format!(
            "SATURATED: {count} of {values} {name} were cut off at {bound}; the model says other things than it should"
        )
    };
    let saturated = ranges.iter().filter(|range| range.saturated > 0);
    saturated.map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_brings_a_peak_below_a_quarter_of_the_range() {
        let q16 = |value: u32| value << 16;
        for (stored, peak, at, shift) in [
            (Stored::GateProduct, 0, 6, 0),
            (Stored::GateProduct, q16(3), 6, 0),
            (Stored::GateProduct, q16(4), 6, 1),
            (Stored::Up, q16(1000), 0, 2),
            (Stored::Up, q16(255), 1, 1),
            (Stored::Up, q16(50), 6, 4),
            (Stored::GateProduct, q16(1024), 6, 6),
            (Stored::Residual, q16(255), 3, 0),
            (Stored::Residual, q16(256), 3, 1),
            (Stored::Residual, q16(8000), 0, 2),
            (Stored::Residual, q16(8192), 3, 3),
        ] {
            assert_eq!(shift_for(stored, peak, at), shift, "{stored:?} {peak} {at}");
        }
    }

    #[test]
    fn the_largest_shift_that_is_held_is_found_and_brought_about() {
        for most in 0..=RESIDUAL_SHIFT_MAX {
            let mut at = None;
            let held = largest_held(|shift| {
                if shift > most {
                    return Err(ImportError::TooLarge("a gain".to_owned()));
                }
                at = Some(shift);
                Ok(())
            });
            assert_eq!((held.unwrap(), at), (most, Some(most)));
        }
        let refused = largest_held(|_| Err(ImportError::TooLarge("a gain".to_owned())));
        assert!(matches!(refused, Err(ImportError::TooLarge(_))));
    }

    #[test]
    fn scales_move_by_their_exponents_alone() {
        let scale = |exponent: u32| (exponent << 24 | 0xcc_cccd).to_le_bytes();
        let mut scales = [scale(5), [0; 4], scale(9)].concat();
        assert!(shift_scales(&mut scales, 3));
        assert_eq!(scales, [scale(8), [0; 4], scale(12)].concat());
        assert!(shift_scales(&mut scales, -8));
        assert_eq!(scales, [scale(0), [0; 4], scale(4)].concat());
        assert!(!shift_scales(&mut scales, -1));
        let mut small = scale(36);
        assert!(shift_scales(&mut small, 5));
        assert_eq!(small, [0; 4]);
    }

    #[test]
    fn what_saturates_is_told_by_its_kind() {
        let range = |stored, saturated| Range {
            stored,
            peak_q16: 5,
            saturated,
            values: 100,
        };
        let notes = saturation_notes(&[range(Stored::Key, 0), range(Stored::Up, 7)]);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with("SATURATED: 7 of 100 up projections were cut off at 1024"));
    }
}
