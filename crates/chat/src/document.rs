//! JSON that a client sends and a template reads: tools, and the arguments of calls.

use std::fmt;

use minijinja::value::{Value, ValueKind};

/// A JSON document. Its keys keep their order, since models are shown them in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Json(Value);

/// A text that is no JSON, or nests too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a JSON document")]
pub struct NotJson;

impl Json {
    /// Reads one document, of at most 127 levels.
    ///
    /// # Errors
    /// [`NotJson`].
    pub fn parse(text: &str) -> Result<Self, NotJson> {
        serde_json::from_str(text).map(Self).map_err(|_| NotJson)
    }

    /// A text as a document.
    pub fn text(text: &str) -> Self {
        Self(Value::from(text))
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.kind() == ValueKind::Map
    }

    /// How many bytes its texts have, keys among them.
    pub fn bytes(&self) -> usize {
        let mut bytes = 0_usize;
        let counted = self.map_texts(&mut |text| {
            bytes = bytes.saturating_add(text.len());
            Ok::<_, std::convert::Infallible>(String::new())
        });
        let Ok(_) = counted;
        bytes
    }

    /// The same with each text in it changed, keys among them.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map_texts<E>(
        &self,
        change: &mut impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Self, E> {
        map(&self.0, change).map(Self)
    }

    pub(crate) fn value(&self) -> Value {
        self.0.clone()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(&self.0).map_err(|_| fmt::Error)?;
        formatter.write_str(&text)
    }
}

/// Its depth is what the reader of JSON allows.
fn map<E>(value: &Value, change: &mut impl FnMut(&str) -> Result<String, E>) -> Result<Value, E> {
    if let Some(text) = value.as_str() {
        return Ok(Value::from(change(text)?));
    }
    // A value that is none can be iterated over as well.
    if !matches!(value.kind(), ValueKind::Map | ValueKind::Seq) {
        return Ok(value.clone());
    }
    let items = value.try_iter().into_iter().flatten();
    if value.kind() == ValueKind::Map {
        let pairs = items.map(|key| {
            let item = value.get_item(&key).unwrap_or_default();
            Ok((map(&key, change)?, map(&item, change)?))
        });
        let pairs: Vec<(Value, Value)> = pairs.collect::<Result<_, E>>()?;
        return Ok(Value::from_pairs(pairs));
    }
    let items = items.map(|item| map(&item, change));
    let items: Vec<Value> = items.collect::<Result<_, E>>()?;
    Ok(Value::from(items))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_keeps_its_order_and_all_its_texts_can_be_changed() {
        let text = r#"{"z":["a",{"k":"b"}],"a":1.5,"n":null,"t":true,"i":-3,"e":[]}"#;
        let json = Json::parse(text).unwrap();
        assert_eq!(json.to_string(), text);
        assert_eq!(json.bytes(), 9);
        let louder = json.map_texts(&mut |text| Ok::<_, NotJson>(text.to_uppercase()));
        assert_eq!(
            louder.unwrap().to_string(),
            r#"{"Z":["A",{"K":"B"}],"A":1.5,"N":null,"T":true,"I":-3,"E":[]}"#
        );
        assert!(json.map_texts(&mut |_| Err(NotJson)).is_err());
        let deep = "[".repeat(200) + &"]".repeat(200);
        for bad in ["", "{", "[1] 2", deep.as_str()] {
            assert_eq!(Json::parse(bad), Err(NotJson));
        }
    }
}
