//! Structs and enums as a source declares them, with their attributes: what clap and serde derive
//! command lines and configuration from.

use super::tokens::{Token, group, tokens};

/// A struct, or an enum.
#[derive(Debug, Default)]
pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) attributes: Attributes,
    /// A struct's.
    pub(crate) fields: Vec<Field>,
    /// An enum's.
    pub(crate) variants: Vec<Variant>,
}

/// A named field.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) attributes: Attributes,
    /// The words of its type: `Option`, `PathBuf`.
    pub(crate) words: Vec<String>,
}

/// A variant of an enum.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) attributes: Attributes,
    /// Of `Name(Type)`, the words of the types.
    pub(crate) words: Vec<String>,
    /// Of `Name { .. }`.
    pub(crate) fields: Vec<Field>,
}

/// Attributes: `#[name(..)]` as the name and the tokens in it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attributes(Vec<(String, Vec<Token>)>);

impl Attributes {
    /// Whether an attribute of this name holds this word.
    pub(crate) fn has(&self, name: &str, word: &str) -> bool {
        self.inside(name).any(|token| token.word() == Some(word))
    }

    /// The text in `#[name(key = "text")]`.
    pub(crate) fn text(&self, name: &str, key: &str) -> Option<&str> {
        let inside: Vec<&Token> = self.inside(name).collect();
        inside.windows(3).find_map(|window| match window {
            [Token::Word(word), Token::Mark('='), Token::Text(text)] if word == key => {
                Some(text.as_str())
            }
            _ => None,
        })
    }

    fn inside(&self, name: &str) -> impl Iterator<Item = &Token> {
        let named = self.0.iter().filter(move |(known, _)| known == name);
        named.flat_map(|(_, inside)| inside)
    }
}

/// The types that a source declares, those in its inner modules too.
pub(crate) fn types(source: &str) -> Vec<Type> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut attributes = Attributes::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if token.is('#') && tokens.get(at + 1).is_some_and(|next| next.is('[')) {
            let inside = group(&tokens, at + 1);
            attributes.0.push(attribute(inside));
            at += inside.len() + 3;
            continue;
        }
        let declared = (token.word(), tokens.get(at + 1).and_then(Token::word));
        if let (Some(kind @ ("struct" | "enum")), Some(name)) = declared {
            let body = body(&tokens, at + 2);
            let attributes = std::mem::take(&mut attributes);
            found.push(match kind {
                "struct" => Type {
                    name: name.to_owned(),
                    attributes,
                    fields: fields(body),
                    variants: Vec::new(),
                },
                _ => Type {
                    name: name.to_owned(),
                    attributes,
                    fields: Vec::new(),
                    variants: variants(body),
                },
            });
        }
        if matches!(token, Token::Mark(';' | '{' | '}')) {
            attributes = Attributes::default();
        }
        at += 1;
    }
    found
}

/// What stands in the braces of a declaration, if it has any.
fn body(tokens: &[Token], mut at: usize) -> &[Token] {
    while let Some(token) = tokens.get(at) {
        match token {
            Token::Mark('{') => return group(tokens, at),
            Token::Mark(';' | '(') => break,
            _ => at += 1,
        }
    }
    &[]
}

fn attribute(inside: &[Token]) -> (String, Vec<Token>) {
    let name = inside.first().and_then(Token::word).unwrap_or_default();
    (name.to_owned(), inside.iter().skip(1).cloned().collect())
}

/// The parts between the commas that are in no bracket, not even an angled one.
fn parts(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_i32;
    let split = tokens.split(|token| {
        match token {
            Token::Mark('(' | '[' | '{' | '<') => depth += 1,
            Token::Mark(')' | ']' | '}' | '>') => depth -= 1,
            _ => {}
        }
        depth == 0 && token.is(',')
    });
    split.filter(|part| !part.is_empty()).collect()
}

fn attributes_of(part: &[Token]) -> (Attributes, &[Token]) {
    let mut attributes = Attributes::default();
    let mut rest = part;
    while rest.first().is_some_and(|token| token.is('#')) {
        let inside = group(rest, 1);
        attributes.0.push(attribute(inside));
        rest = &rest[inside.len() + 3..];
    }
    (attributes, rest)
}

fn words(tokens: &[Token]) -> Vec<String> {
    let words = tokens.iter().filter_map(Token::word);
    words.map(str::to_owned).collect()
}

fn fields(body: &[Token]) -> Vec<Field> {
    let parts = parts(body).into_iter();
    parts
        .filter_map(|part| {
            let (attributes, rest) = attributes_of(part);
            let colon = rest.iter().position(|token| token.is(':'))?;
            Some(Field {
                name: rest[..colon].last()?.word()?.to_owned(),
                attributes,
                words: words(&rest[colon + 1..]),
            })
        })
        .collect()
}

fn variants(body: &[Token]) -> Vec<Variant> {
    let parts = parts(body).into_iter();
    parts
        .filter_map(|part| {
            let (attributes, rest) = attributes_of(part);
            let inside = match rest.get(1) {
                Some(Token::Mark('{' | '(')) => group(rest, 1),
                _ => &[],
            };
            let named = rest.get(1).is_some_and(|token| token.is('{'));
            Some(Variant {
                name: rest.first()?.word()?.to_owned(),
                attributes,
                words: if named { Vec::new() } else { words(inside) },
                fields: if named { fields(inside) } else { Vec::new() },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_read_with_their_attributes() {
        let types = types(
            "/// Says { odd things }.
             #[derive(Debug, Args)]
             pub(crate) struct A<'a> {
                 /// A map, a comma.
                 #[arg(long = \"other\", value_name = \"N\")]
                 pub(crate) b: Option<HashMap<String, u8>>,
                 c: bool,
             }
             fn f() {}
             enum D { E, #[command(subcommand)] F(g::H), I { #[arg(long)] j: u8 } }",
        );
        assert_eq!(types.len(), 2);
        let (a, d) = (&types[0], &types[1]);
        assert!(a.attributes.has("derive", "Args"));
        let fields: Vec<&str> = a.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(fields, ["b", "c"]);
        assert_eq!(a.fields[0].attributes.text("arg", "long"), Some("other"));
        assert_eq!(a.fields[0].words, ["Option", "HashMap", "String", "u8"]);
        let names: Vec<&str> = d
            .variants
            .iter()
            .map(|variant| variant.name.as_str())
            .collect();
        assert_eq!(names, ["E", "F", "I"]);
        assert!(!d.attributes.has("derive", "Args"));
        assert!(d.variants[1].attributes.has("command", "subcommand"));
        assert_eq!(d.variants[1].words, ["g", "H"]);
        assert_eq!(d.variants[2].fields[0].name, "j");
    }
}
