//! What both kinds of completions can be asked for: how to sample, where to stop, which form the answer has, how it travels.
//! What is not done is refused by its name; the rest is OpenAI's, in the units of a task.

use dovetail_commitment::{
    Form, OUTPUT_TOKENS_MAX, STOP_SEQUENCE_BYTES_MAX, STOP_SEQUENCES_MAX, SamplingParams,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::error::ApiError;
use super::fields::Fields;

/// Whether a value is its field's default.
type IsDefault = fn(&Value) -> bool;

/// Fields of which the default alone is taken. Absent and null count as the default.
const ONLY_BY_DEFAULT: [(&str, IsDefault); 8] = [
    ("n", |value| value.as_f64() == Some(1.0)),
    ("frequency_penalty", is_zero),
    ("presence_penalty", is_zero),
    ("logit_bias", |value| {
        value.as_object().is_some_and(|map| map.is_empty())
    }),
    ("best_of", |value| value.as_f64() == Some(1.0)),
    ("echo", is_false),
    ("top_logprobs", is_zero),
    ("audio", |_| false),
];
/// Any JSON object. The guide follows it with no more than its own bounds.
const ANY_OBJECT: &str = r#"{"type":"object"}"#;

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn is_false(value: &Value) -> bool {
    *value == Value::Bool(false)
}

/// What is asked for besides the prompt.
pub(super) struct Parameters {
    pub(super) model: String,
    pub(super) sampling: SamplingParams,
    pub(super) stop: Vec<String>,
    pub(super) seed: Option<[u8; 32]>,
    pub(super) form: Option<Form>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// Whether names of control tokens in the prompt are these tokens.
    pub(super) control_tokens: bool,
}

#[derive(Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Option<Box<RawValue>>,
}

impl Parameters {
    /// Reads them. `tokens`: how many are generated where the request does not say; `None`: as many as fit.
    pub(super) fn read(fields: &Fields, tokens: Option<u32>) -> Result<Self, ApiError> {
        for (name, is_default) in ONLY_BY_DEFAULT {
            if fields
                .get::<Value>(name)?
                .is_some_and(|value| !is_default(&value))
            {
                return Err(ApiError::unsupported(name, "this pool does not do it"));
            }
        }
        refuse_log_probabilities(fields)?;
        let asked = match fields.get::<u32>("max_completion_tokens")? {
            Some(tokens) => Some(tokens),
            None => fields.get::<u32>("max_tokens")?,
        };
        if asked == Some(0) {
            return Err(ApiError::invalid(
                "max_tokens",
                "an answer has at least one token",
            ));
        }
        let wanted = asked.or(tokens);
        let stream = fields.get("stream")?.unwrap_or(false);
        let options: Option<StreamOptions> = fields.get("stream_options")?;
        Ok(Self {
            model: fields.required("model")?,
            sampling: SamplingParams {
                temperature_milli: thousandths(fields, "temperature", 0..=2_000)?,
                top_k: 0,
                // A share of nothing is the likeliest token, as OpenAI has it.
                top_p_milli: thousandths(fields, "top_p", 0..=1_000)?.max(1),
                max_tokens: wanted.map_or(OUTPUT_TOKENS_MAX, |most| most.min(OUTPUT_TOKENS_MAX)),
            },
            stop: stop(fields)?,
            seed: fields
                .get::<Number>("seed")?
                .map(|seed| seed_of(&seed))
                .transpose()?,
            form: form(fields)?,
            stream,
            include_usage: options.unwrap_or_default().include_usage,
            control_tokens: fields.get("control_tokens")?.unwrap_or(false),
        })
    }
}

/// Of a chat a switch, of a completion a number; neither is done.
fn refuse_log_probabilities(fields: &Fields) -> Result<(), ApiError> {
    match fields.get::<Value>("logprobs")? {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(_) => Err(ApiError::unsupported(
            "logprobs",
            "this pool does not do it",
        )),
    }
}

/// A number of which a task has the thousandths; 1 where it is absent.
fn thousandths(
    fields: &Fields,
    name: &'static str,
    bounds: std::ops::RangeInclusive<u32>,
) -> Result<u32, ApiError> {
    let Some(value) = fields.get::<f64>(name)? else {
        return Ok(1_000);
    };
    let milli = (value * 1_000.0).round();
    let (least, most) = (f64::from(*bounds.start()), f64::from(*bounds.end()));
    match (least..=most).contains(&milli) {
        // A whole number of at most 2,000.
        true => Ok(milli as u32),
        false => {
            let reason = format!("it must lie in {}..={}", least / 1_000.0, most / 1_000.0);
            Err(ApiError::invalid(name, reason))
        }
    }
}

fn stop(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let stop = match fields.get::<Stop>("stop")? {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Several(stop)) => stop,
    };
    let fits = |stop: &String| (1..=STOP_SEQUENCE_BYTES_MAX).contains(&stop.len());
    match stop.len() <= STOP_SEQUENCES_MAX && stop.iter().all(fits) {
        true => Ok(stop),
        false => {
            let reason = format!(
                "at most {STOP_SEQUENCES_MAX} stop sequences, each of 1 to {STOP_SEQUENCE_BYTES_MAX} bytes"
            );
            Err(ApiError::invalid("stop", reason))
        }
    }
}

/// A whole number as the 32 bytes of a task's seed, big-endian, with its sign.
fn seed_of(seed: &Number) -> Result<[u8; 32], ApiError> {
    let signed = seed.as_i64().map(i128::from);
    let number = signed.or(seed.as_u64().map(i128::from));
    let number =
        number.ok_or_else(|| ApiError::invalid("seed", "it must be a whole number of 64 bits"))?;
    let fill = if number < 0 { u8::MAX } else { 0 };
    let mut bytes = [fill; 32];
    bytes[16..].copy_from_slice(&number.to_be_bytes());
    Ok(bytes)
}

fn form(fields: &Fields) -> Result<Option<Form>, ApiError> {
    const NAME: &str = "response_format";
    let raw = fields.raw("response_format").map(RawValue::get);
    let Some(format) = raw.map(serde_json::from_str::<ResponseFormat>) else {
        return Ok(None);
    };
    let format = format.map_err(|_| ApiError::invalid(NAME, "it must be an object with a type"))?;
    match format.r#type.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(Form::JsonSchema(ANY_OBJECT.to_owned()))),
        "json_schema" => {
            let schema = format.json_schema.and_then(|named| named.schema);
            let schema =
                schema.ok_or_else(|| ApiError::invalid(NAME, "json_schema.schema is missing"))?;
            // As it was written: properties come in the order of the schema.
            Ok(Some(Form::JsonSchema(schema.get().to_owned())))
        }
        _ => Err(ApiError::unsupported(
            NAME,
            "its type is none of text, json_object and json_schema",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Code;
    use super::*;

    fn read(body: &str) -> Result<Parameters, ApiError> {
        Parameters::read(&Fields::parse(body.as_bytes())?, None)
    }

    fn refusal(body: &str) -> (Code, Value) {
        let refused = read(body).err().expect(body);
        (refused.code, refused.envelope()["error"]["param"].clone())
    }

    #[test]
    fn a_request_of_a_model_alone_samples_as_openai_does() {
        let asked = read(r#"{"model": "m", "foo": {"bar": 1}}"#).unwrap();
        let sampling = asked.sampling;
        assert_eq!(
            (sampling.temperature_milli, sampling.top_p_milli),
            (1_000, 1_000)
        );
        assert!(!asked.stream && !asked.control_tokens);
        assert!(asked.seed.is_none() && asked.form.is_none() && asked.stop.is_empty());
        sampling.validate().unwrap();
    }

    #[test]
    fn what_openai_s_fields_say_is_in_the_units_of_a_task() {
        let asked = read(
            r#"{"model": "m", "temperature": 0.7, "top_p": 0.95, "max_tokens": 5, "max_completion_tokens": 7,
                "stop": "END", "seed": 258, "stream": true, "stream_options": {"include_usage": true},
                "n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": false, "logit_bias": {},
                "response_format": {"type": "text"}, "store": true, "metadata": {"a": "b"}, "user": "u"}"#,
        )
        .unwrap();
        assert_eq!(asked.sampling.temperature_milli, 700);
        assert_eq!(asked.sampling.top_p_milli, 950);
        assert_eq!(asked.sampling.max_tokens, 7);
        assert_eq!(asked.stop, ["END"]);
        let seed = asked.seed.unwrap();
        assert!(seed[..30].iter().all(|byte| *byte == 0) && seed[30..] == [1, 2]);
        assert!(asked.stream && asked.include_usage);
        let more = read(r#"{"model": "m", "max_tokens": 100000, "top_p": 0, "seed": -1}"#).unwrap();
        assert_eq!(more.sampling.max_tokens, OUTPUT_TOKENS_MAX);
        assert_eq!(
            (more.sampling.top_p_milli, more.seed),
            (1, Some([0xff; 32]))
        );
    }

    #[test]
    fn a_schema_keeps_the_order_of_its_properties() {
        let schema =
            r#"{"type": "object", "properties": {"z": {"type": "null"}, "a": {"type": "null"}}}"#;
        let format = format!(
            r#"{{"type": "json_schema", "json_schema": {{"name": "s", "strict": true, "schema": {schema}}}}}"#
        );
        let asked = read(&format!(r#"{{"model": "m", "response_format": {format}}}"#)).unwrap();
        assert!(asked.form == Some(Form::JsonSchema(schema.to_owned())));
        let asked = read(r#"{"model": "m", "response_format": {"type": "json_object"}}"#).unwrap();
        assert!(asked.form == Some(Form::JsonSchema(ANY_OBJECT.to_owned())));
    }

    #[test]
    fn what_is_not_done_is_refused_by_its_name() {
        for (field, name) in [
            (r#""n": 2"#, "n"),
            (r#""logprobs": true"#, "logprobs"),
            (r#""logprobs": 0"#, "logprobs"),
            (r#""top_logprobs": 3"#, "top_logprobs"),
            (r#""frequency_penalty": 0.5"#, "frequency_penalty"),
            (r#""presence_penalty": -1"#, "presence_penalty"),
            (r#""logit_bias": {"1": 5}"#, "logit_bias"),
            (r#""audio": {"voice": "alloy"}"#, "audio"),
            (
                r#""response_format": {"type": "grammar"}"#,
                "response_format",
            ),
        ] {
            let refused = refusal(&format!(r#"{{"model": "m", {field}}}"#));
            assert_eq!(
                refused,
                (Code::UnsupportedParameter, name.into()),
                "{field}"
            );
        }
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_its_field() {
        for (field, name) in [
            (r#""temperature": 2.1"#, "temperature"),
            (r#""temperature": -0.1"#, "temperature"),
            (r#""temperature": "hot""#, "temperature"),
            (r#""top_p": 1.5"#, "top_p"),
            (r#""max_tokens": 0"#, "max_tokens"),
            (r#""max_tokens": -1"#, "max_tokens"),
            (r#""seed": 1.5"#, "seed"),
            (r#""seed": 1e30"#, "seed"),
            (r#""stop": """#, "stop"),
            (r#""stop": ["a", "b", "c", "d", "e"]"#, "stop"),
            (r#""response_format": "json""#, "response_format"),
            (
                r#""response_format": {"type": "json_schema"}"#,
                "response_format",
            ),
            (r#""model": null"#, "model"),
        ] {
            let refused = refusal(&format!(r#"{{"model": "m", {field}}}"#));
            assert_eq!(refused, (Code::InvalidValue, name.into()), "{field}");
        }
    }
}
