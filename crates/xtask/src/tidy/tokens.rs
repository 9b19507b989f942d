//! Rust source as a flat list of words, strings and marks: enough to find modules, macros and
//! derived types without a parser. Comments are left out.

/// A piece of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier, a keyword or a number.
    Word(String),
    /// What a string literal holds, escapes as they stand.
    Text(String),
    /// Any other character.
    Mark(char),
}

impl Token {
    pub(crate) fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Text(_) | Self::Mark(_) => None,
        }
    }

    pub(crate) fn is(&self, mark: char) -> bool {
        *self == Self::Mark(mark)
    }
}

/// Cuts a source into its tokens.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            '"' => {
                let (length, text) = plain_string(rest);
                found.push(Token::Text(text));
                length
            }
            'r' if rest.starts_with("r\"") || rest.starts_with("r#\"") => {
                let (length, text) = raw_string(rest);
                found.push(Token::Text(text));
                length
            }
            '\'' => quote(rest),
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                found.push(Token::Word(rest[..length].to_owned()));
                length
            }
            c => {
                if !c.is_whitespace() {
                    found.push(Token::Mark(c));
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    found
}

/// The tokens between the bracket that stands at `open` and the one that closes it.
pub(crate) fn group(tokens: &[Token], open: usize) -> &[Token] {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return &tokens[open + 1..index];
                }
            }
            _ => {}
        }
    }
    &tokens[tokens.len().min(open + 1)..]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// How long the block comment is that `rest` begins with; they nest.
fn comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn plain_string(rest: &str) -> (usize, String) {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return (at + 1, rest[1..at].to_owned()),
            _ => {}
        }
    }
    (rest.len(), rest[1..].to_owned())
}

fn raw_string(rest: &str) -> (usize, String) {
    let hashes = rest[1..].find('"').unwrap_or(0);
    let start = 1 + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = rest[start..].find(&end).unwrap_or(rest.len() - start);
    let text = rest[start..start + length].to_owned();
    (rest.len().min(start + length + end.len()), text)
}

/// A character literal, whole, or the mark of a lifetime.
fn quote(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let after = at + c.len_utf8();
            after + rest[after..].find('\'').map_or(0, |end| end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str) -> String {
        let shown: Vec<String> = tokens(source)
            .into_iter()
            .map(|token| match token {
                Token::Word(word) => word,
                Token::Text(text) => format!("<{text}>"),
                Token::Mark(mark) => mark.to_string(),
            })
            .collect();
        shown.join(" ")
    }

    #[test]
    fn comments_are_left_out_and_strings_are_one_token() {
        let source = "a /* b /* c */ d */ // e\n\"f // \\\" g\" r#\"h \" i\"# j";
        assert_eq!(shown(source), "a <f // \\\" g> <h \" i> j");
    }

    #[test]
    fn characters_and_lifetimes_do_not_begin_strings() {
        assert_eq!(shown("'\"' x '\\'' y &'a str"), "x y & a str");
    }

    #[test]
    fn a_group_ends_where_its_bracket_is_closed() {
        let tokens = tokens("f(a, (b), [c]) d");
        assert_eq!(group(&tokens, 1).len(), 9);
    }
}
