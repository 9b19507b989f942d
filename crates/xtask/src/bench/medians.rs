//! What rounds come to: the median of each figure, and of the ratios of neighbours.

use serde_json::{Map, Value, json};

/// The same object with the median of each number over the rounds, at any depth. What is no number in any round stays out.
pub(super) fn medians(rounds: &[&Value]) -> Value {
    let objects: Vec<&Map<String, Value>> =
        rounds.iter().filter_map(|row| row.as_object()).collect();
    if objects.is_empty() {
        let numbers = rounds.iter().filter_map(|value| value.as_f64());
        return json!(median(numbers.collect()));
    }
    let mut medians_of = Map::new();
    for key in objects.iter().flat_map(|object| object.keys()) {
        if medians_of.contains_key(key) {
            continue;
        }
        let values: Vec<&Value> = objects
            .iter()
            .filter_map(|object| object.get(key))
            .collect();
        if values
            .iter()
            .any(|value| value.is_number() || value.is_object())
        {
            medians_of.insert(key.clone(), medians(&values));
        }
    }
    Value::Object(medians_of)
}

/// The median of the ratios of a figure, round by round: what else the machine does hits both of a round.
pub(super) fn ratio(ours: &[Value], theirs: &[Value], key: &str) -> Option<f64> {
    let pairs = ours.iter().zip(theirs);
    let ratios = pairs.filter_map(|(ours, theirs)| {
        let ratio = ours[key].as_f64()? / theirs[key].as_f64()?;
        ratio.is_finite().then_some(ratio)
    });
    median(ratios.collect())
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (upper, lower) = (values.len() / 2, values.len().checked_sub(1)? / 2);
    Some(f64::midpoint(*values.get(lower)?, *values.get(upper)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_each_number_at_any_depth() {
        let rounds = [
            json!({ "a": 1.0, "b": { "c": 10 }, "d": "word", "e": null }),
            json!({ "a": 3.0, "b": { "c": 30 }, "d": "word", "e": 4 }),
            json!({ "a": 2.0, "b": { "c": 20 }, "d": "word", "e": null }),
        ];
        let rounds: Vec<&Value> = rounds.iter().collect();
        let expected = json!({ "a": 2.0, "b": { "c": 20.0 }, "e": 4.0 });
        assert_eq!(medians(&rounds), expected);
    }

    #[test]
    fn a_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![5.0]), Some(5.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn ratios_are_of_neighbours() {
        let rows = |values: &[f64]| -> Vec<Value> {
            values.iter().map(|value| json!({ "x": value })).collect()
        };
        let (ours, theirs) = (rows(&[1.0, 4.0, 9.0]), rows(&[1.0, 2.0, 3.0]));
        assert_eq!(ratio(&ours, &theirs, "x"), Some(2.0));
        assert_eq!(ratio(&ours, &rows(&[0.0, 0.0, 0.0]), "x"), None);
        assert_eq!(ratio(&ours, &theirs, "y"), None);
    }
}
