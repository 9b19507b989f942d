//! `[pool]` for one pool, `[[pool]]` for several in order of preference.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::Pool;

/// Reads either form.
///
/// # Errors
/// Neither a table nor an array of tables, or what is wrong in one of them.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Pool>, D::Error> {
    input.deserialize_any(OneOrMany)
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Vec<Pool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table [pool] or an array of tables [[pool]]")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<Pool>, A::Error> {
        Pool::deserialize(MapAccessDeserializer::new(map)).map(|pool| vec![pool])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<Pool>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigRefused};

    fn parse(upstreams: &str) -> Result<Config, toml::de::Error> {
        let worker = "[worker]\nkey_file = \"k\"\nmodels = [\"m\"]\n";
        toml::from_str(&format!("{worker}{upstreams}"))
    }

    fn addresses(config: &Config) -> Vec<&str> {
        config.pool.iter().map(|pool| &pool.address[..]).collect()
    }

    /// What a pool's table must have, with this address.
    fn pool(address: &str) -> String {
        let key = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
        format!("address = {address:?}\nauthority_public_key = {key:?}\n")
    }

    #[test]
    fn one_pool_and_several_are_both_read_in_their_order() {
        let one = parse(&format!("[pool]\n{}", pool("a:1"))).unwrap();
        assert_eq!(addresses(&one), ["a:1"]);
        let (first, second) = (pool("a:1"), pool("b:2"));
        let several = parse(&format!(
            "[[pool]]\n{first}[[pool]]\n{second}[pool.job_declarator]\naddress = \"b:3\""
        ));
        let several = several.unwrap();
        assert_eq!(addresses(&several), ["a:1", "b:2"]);
        assert!(several.pool[0].job_declarator.is_none());
        assert!(several.pool[1].job_declarator.is_some());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let first = pool("a:1");
        let unknown = parse(&format!("[[pool]]\n{first}adress = \"b:1\"")).unwrap_err();
        assert!(unknown.to_string().contains("adress"), "{unknown}");
        let unauthenticated = parse("[pool]\naddress = \"a:1\"").unwrap_err();
        let named = unauthenticated.to_string();
        assert!(named.contains("authority_public_key"), "{named}");
        let moved = parse(&format!(
            "[pool]\n{first}[job_declarator]\naddress = \"a:2\""
        ));
        assert_eq!(
            moved.unwrap().validate(),
            Err(ConfigRefused::DeclaratorMoved)
        );
    }
}
