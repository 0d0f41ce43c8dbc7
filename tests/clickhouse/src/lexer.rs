//! ClickHouse's SQL in tokens: enough to find clauses without looking into strings and comments.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// A name in backquotes or double quotes.
    Quoted,
    /// A string or a heredoc.
    String,
    /// A number.
    Number,
    /// One sign.
    Sign(u8),
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its bytes in the text.
    pub at: Range<usize>,
    /// How many brackets are open around it.
    pub depth: usize,
}

/// The tokens of a text, without spaces and comments. Ends at the end or where a quote stays open.
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Lexer<'a> {
    /// From the text's beginning.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let skipped = match rest {
                [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0b => 1,
                [b'-', b'-', ..] | [b'#', b' ' | b'!', ..] => line(rest),
                [b'/', b'*', ..] => comment(rest),
                _ => return,
            };
            self.at += skipped;
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let rest = &self.text[self.at..];
        let (kind, length) = match *rest.first()? {
            quote @ (b'\'' | b'"' | b'`') => {
                (if quote == b'\'' { Kind::String } else { Kind::Quoted }, quoted(rest, quote)?)
            }
            b'$' => match heredoc(rest) {
                Some(length) => (Kind::String, length),
                None => (Kind::Sign(b'$'), 1),
            },
            byte if byte.is_ascii_digit() => (Kind::Number, word(rest, true)),
            byte if is_word(byte) => (Kind::Word, word(rest, false)),
            byte => (Kind::Sign(byte), 1),
        };
        if matches!(kind, Kind::Sign(b')' | b']' | b'}')) {
            self.depth = self.depth.saturating_sub(1);
        }
        let token = Token { kind, at: self.at..self.at + length, depth: self.depth };
        if matches!(kind, Kind::Sign(b'(' | b'[' | b'{')) {
            self.depth += 1;
        }
        self.at += length;
        Some(token)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn line(rest: &[u8]) -> usize {
    rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

fn comment(rest: &[u8]) -> usize {
    rest[2..].windows(2).position(|two| two == b"*/").map_or(rest.len(), |at| at + 4)
}

fn word(rest: &[u8], number: bool) -> usize {
    rest.iter().position(|byte| !(is_word(*byte) || number && *byte == b'.')).unwrap_or(rest.len())
}

/// The length of a quoted token: a backslash takes the next byte, a doubled quote stands for one.
fn quoted(rest: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        match *rest.get(at)? {
            b'\\' => at += 2,
            byte if byte == quote && rest.get(at + 1) == Some(&quote) => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The length of `$tag$…$tag$`.
fn heredoc(rest: &[u8]) -> Option<usize> {
    let tag = 2 + rest[1..].iter().position(|byte| *byte == b'$')?;
    if !rest[1..tag - 1].iter().all(|byte| is_word(*byte)) {
        return None;
    }
    let (opening, body) = rest.split_at(tag);
    body.windows(tag).position(|window| window == opening).map(|at| at + 2 * tag)
}

impl Token {
    /// Its text.
    #[must_use]
    pub fn text<'a>(&self, of: &'a [u8]) -> &'a [u8] {
        &of[self.at.clone()]
    }

    /// Whether it is this keyword.
    #[must_use]
    pub fn is(&self, of: &[u8], keyword: &str) -> bool {
        self.kind == Kind::Word && self.text(of).eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// Whether it is this name, quoted or not.
    #[must_use]
    pub fn names(&self, of: &[u8], name: &str) -> bool {
        match self.kind {
            Kind::Word => self.text(of) == name.as_bytes(),
            Kind::Quoted => &of[self.at.start + 1..self.at.end - 1] == name.as_bytes(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_hide_what_they_hold() {
        let text = b"SELECT 'a;\\'b''c' /* ; */ -- ;\n, `x;y`, $t$ ; $t$, f(1.5e3);";
        let tokens: Vec<_> =
            Lexer::new(text).map(|token| String::from_utf8_lossy(token.text(text)).into_owned()).collect();
        assert_eq!(
            tokens,
            ["SELECT", "'a;\\'b''c'", ",", "`x;y`", ",", "$t$ ; $t$", ",", "f", "(", "1.5e3", ")", ";"]
        );
        let depths: Vec<_> = Lexer::new(b"a (b [c] d) e").map(|token| token.depth).collect();
        assert_eq!(depths, [0, 0, 1, 1, 2, 1, 1, 0, 0]);
    }

    #[test]
    fn an_open_quote_ends_the_tokens() {
        assert_eq!(Lexer::new(b"SELECT 'a").count(), 1);
        assert_eq!(Lexer::new(b"SELECT 1 /* a").count(), 2);
    }
}
