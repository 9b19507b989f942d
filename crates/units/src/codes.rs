//! Error codes: an enum whose variants have fixed words on the wire.

/// Makes an enum of error codes from variants and their words.
///
/// The enum has `ALL` (in the order of its declaration, which is the order of precedence where one matters),
/// `as_str`, `parse` (`None` for a word of another version or of somebody else), `Display`, and equality with
/// strings, since codes arrive as such.
#[macro_export]
macro_rules! codes {
    (
        $(#[$about:meta])*
        $visibility:vis enum $name:ident {
            $( $(#[$when:meta])* $code:ident = $word:literal, )+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $( $(#[$when])* $code, )+
        }

        impl $name {
            /// Every code.
            $visibility const ALL: &[Self] = &[$( Self::$code, )+];

            /// The word that travels.
            $visibility const fn as_str(self) -> &'static str {
                match self {
                    $( Self::$code => $word, )+
                }
            }

            /// The code with this word, if there is one.
            $visibility fn parse(word: &str) -> Option<Self> {
                match word {
                    $( $word => Some(Self::$code), )+
                    _ => None,
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::cmp::PartialEq<$name> for str {
            fn eq(&self, code: &$name) -> bool {
                self == code.as_str()
            }
        }

        impl ::std::cmp::PartialEq<$name> for ::std::string::String {
            fn eq(&self, code: &$name) -> bool {
                self == code.as_str()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    crate::codes! {
        /// Two of them.
        enum Code {
            /// The first.
            TooEarly = "too-early",
            /// The second.
            TooLate = "too-late",
        }
    }

    #[test]
    fn a_code_is_found_by_its_word_and_by_no_other() {
        for &code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
            assert_eq!(code.to_string(), code.as_str());
            assert!(*code.as_str() == code);
        }
        assert_eq!(Code::parse("too-Early"), None);
        assert_eq!(Code::ALL.len(), 2);
    }
}
