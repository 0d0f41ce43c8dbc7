//! JSON's syntax over bytes: finds where tokens end and refuses what RFC 8259 refuses.

use std::borrow::Cow;
use std::ops::Range;

use crate::ingest::number;

/// Deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 127;

/// A violation of JSON's grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct SyntaxError {
    /// Where, in bytes from the start.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Walks over a text, token by token.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner that stands at `at`.
    #[must_use]
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The byte at which it stands; 0, which no token begins with, at the end.
    #[must_use]
    pub fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// The error that `what` was found here.
    #[must_use]
    pub fn error(&self, what: &'static str) -> SyntaxError {
        let what = if self.at >= self.bytes.len() { "the text ends too early" } else { what };
        SyntaxError { at: self.at, what }
    }

    /// Passes white space.
    pub fn space(&mut self) {
        self.at = skip_space(self.bytes, self.at);
    }

    /// Passes `byte` if it stands here.
    pub fn eat(&mut self, byte: u8) -> bool {
        let here = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(here);
        here
    }

    /// Passes `byte`, with white space before and after it.
    ///
    /// # Errors
    /// Another byte stands here.
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), SyntaxError> {
        self.space();
        if !self.eat(byte) {
            return Err(self.error(what));
        }
        self.space();
        Ok(())
    }

    /// Passes white space up to the end of the text.
    ///
    /// # Errors
    /// Something follows.
    pub fn end(&mut self) -> Result<(), SyntaxError> {
        self.space();
        if self.at < self.bytes.len() {
            Err(self.error("something follows the end of the document"))
        } else {
            Ok(())
        }
    }

    /// Passes a key and its colon; returns the key's string, quotes included.
    ///
    /// # Errors
    /// None stands here.
    pub fn key(&mut self) -> Result<Range<usize>, SyntaxError> {
        if self.peek() != b'"' {
            return Err(self.error("expected a key in quotes"));
        }
        let key = self.string()?;
        self.expect(b':', "expected a colon")?;
        Ok(key)
    }

    /// Passes a comma or `close` between members, with white space; whether another member follows.
    ///
    /// # Errors
    /// Neither stands here.
    pub fn next_member(&mut self, close: u8) -> Result<bool, SyntaxError> {
        self.space();
        if self.eat(close) {
            return Ok(false);
        }
        if !self.eat(b',') {
            return Err(self.error("expected a comma or the closing bracket"));
        }
        self.space();
        Ok(true)
    }

    /// Passes `open`; whether a member follows before `close`.
    pub fn open(&mut self, close: u8) -> bool {
        self.at += 1;
        self.space();
        !self.eat(close)
    }

    /// Passes any value; `depth` arrays and objects are open around it.
    ///
    /// # Errors
    /// No valid value stands here.
    pub fn value(&mut self, depth: usize) -> Result<Range<usize>, SyntaxError> {
        let start = self.at;
        let mut open: Vec<u8> = Vec::new();
        loop {
            if self.enter(&mut open, depth)? {
                continue;
            }
            loop {
                let Some(close) = open.last().copied() else { return Ok(start..self.at) };
                if self.next_member(close)? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    /// Passes a scalar, an empty container, or the beginning of a container up to its first value;
    /// true in the last case.
    fn enter(&mut self, open: &mut Vec<u8>, depth: usize) -> Result<bool, SyntaxError> {
        let close = match self.peek() {
            b'{' => b'}',
            b'[' => b']',
            _ => return self.scalar().map(|()| false),
        };
        if open.len() + depth >= MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        if !self.open(close) {
            return Ok(false);
        }
        open.push(close);
        if close == b'}' {
            self.key()?;
        }
        Ok(true)
    }

    fn scalar(&mut self) -> Result<(), SyntaxError> {
        match self.peek() {
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'N' | b'I' => Err(self.error("NaN and Infinity are not JSON")),
            _ => Err(self.error("expected a value")),
        }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), SyntaxError> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.error("expected true, false or null"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        match number::parse(self.bytes, self.at) {
            Some((_, end)) => {
                self.at = end;
                Ok(())
            }
            None => Err(self.error("malformed number")),
        }
    }

    /// Passes the string that begins here; returns it with its quotes. It is UTF-8 and every escape
    /// in it is valid.
    ///
    /// # Errors
    /// It has no end, a control character, a malformed escape, a lone surrogate, or isn't UTF-8.
    pub fn string(&mut self) -> Result<Range<usize>, SyntaxError> {
        let start = self.at;
        self.at += 1;
        let mut ascii = true;
        loop {
            self.at = skip_plain(self.bytes, self.at);
            match self.peek() {
                b'"' => break,
                b'\\' => self.escape()?,
                0..0x20 => return Err(self.error("control character in a string")),
                byte => {
                    ascii &= byte.is_ascii();
                    self.at += 1;
                }
            }
        }
        if !ascii && let Err(error) = std::str::from_utf8(&self.bytes[start..self.at]) {
            return Err(SyntaxError { at: start + error.valid_up_to(), what: "not UTF-8" });
        }
        self.at += 1;
        Ok(start..self.at)
    }

    fn escape(&mut self) -> Result<(), SyntaxError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match unicode_escape(&self.bytes[self.at..]) {
                Some((_, length)) => {
                    self.at += length;
                    Ok(())
                }
                None => Err(self.error("malformed \\u escape or lone surrogate")),
            },
            _ => Err(self.error("unknown escape")),
        }
    }
}

/// Where the characters of a string that need no look of their own end: ASCII but quotes, backslashes
/// and control characters. Eight at a time; the last few of a text are left to the caller.
///
/// The classic test for a zero byte, see Hacker's Delight, section 6-1: it never misses one, and what
/// it finds too much stands behind a true one.
fn skip_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word & HIGH;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = quote | backslash | below(word, 0x20) | (word & HIGH);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at
}

/// Where white space that begins at `at` ends.
#[must_use]
pub fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The character of the `\uXXXX` at the start of `bytes`, or of a pair of them, and its length.
fn unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let first = hex_escape(bytes)?;
    if !(0xD800..0xE000).contains(&first) {
        return Some((char::from_u32(first)?, 6));
    }
    let second = hex_escape(bytes.get(6..)?)?;
    let paired = first < 0xDC00 && (0xDC00..0xE000).contains(&second);
    let scalar = 0x1_0000 + ((first & 0x3FF) << 10 | (second & 0x3FF));
    paired.then(|| char::from_u32(scalar)).flatten().map(|character| (character, 12))
}

fn hex_escape(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |sum, byte| Some(sum << 4 | char::from(*byte).to_digit(16)?))
}

/// The text of a string that [`Scanner::string`] has passed, given with its quotes.
#[must_use]
pub fn text(quoted: &[u8]) -> Cow<'_, str> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inner).is_none() {
        return String::from_utf8_lossy(inner);
    }
    Cow::Owned(unescape(inner))
}

fn unescape(mut rest: &[u8]) -> String {
    let mut text = String::with_capacity(rest.len());
    while let Some(at) = memchr::memchr(b'\\', rest) {
        text.push_str(&String::from_utf8_lossy(&rest[..at]));
        let (character, length) = match rest.get(at + 1) {
            Some(b'u') => unicode_escape(&rest[at..]).unwrap_or((char::REPLACEMENT_CHARACTER, 2)),
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(other) => (char::from(*other), 2),
            None => break,
        };
        text.push(character);
        rest = &rest[at + length..];
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &[u8]) -> bool {
        let mut scanner = Scanner::new(text, 0);
        scanner.space();
        scanner.value(0).and_then(|_| scanner.end()).is_ok()
    }

    /// What serde_json takes, but for numbers that overflow, which are valid JSON.
    fn is_json(text: &[u8]) -> bool {
        match serde_json::from_slice::<serde_json::Value>(text) {
            Ok(_) => true,
            Err(error) if error.to_string().starts_with("number out of range") => {
                serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
            }
            Err(_) => false,
        }
    }

    #[test]
    fn it_accepts_what_serde_json_accepts() {
        let seeds: [&str; 8] = [
            r#"{"a":[1,2.5e3,-0,{"b":null,"c":[true,false,[]],"d":{}}],"e":"\u00e4\ud83d\ude00\"\\\/\b\f\n\r\t"}"#,
            "[ 1 ,\t2 , [ { \"x\" : \"ä€😀\" } ] ]\r\n",
            "\"\\ud800\\u0041\"",
            "1e999",
            "\"\\u12g4\"",
            "{\"a\":1,}",
            "[NaN]",
            "tru",
        ];
        let mut random = fastrand::Rng::with_seed(2);
        for seed in seeds {
            assert_eq!(accepts(seed.as_bytes()), is_json(seed.as_bytes()), "{seed}");
            for cut in 0..seed.len() {
                let text = &seed.as_bytes()[..cut];
                assert_eq!(accepts(text), is_json(text), "{:?}", String::from_utf8_lossy(text));
            }
            for _ in 0..3_000 {
                let mut text = seed.as_bytes().to_vec();
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(..text.len());
                    match random.u8(..3) {
                        0 => text[at] = random.u8(..),
                        1 => text[at] = *random.choice(b"\"\\{}[]:,0.eE+-utn \x1f\xff").unwrap(),
                        _ => text.insert(at, *random.choice(b"\"\\{}[]:,01.eE+-utn \x1f\xc3").unwrap()),
                    }
                }
                assert_eq!(accepts(&text), is_json(&text), "{:?}", String::from_utf8_lossy(&text));
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(accepts(&nested(MAX_DEPTH)) && is_json(&nested(MAX_DEPTH)));
        assert!(!accepts(&nested(MAX_DEPTH + 1)) && !is_json(&nested(MAX_DEPTH + 1)));
    }

    #[test]
    fn text_is_what_serde_json_reads() {
        for quoted in [r#""""#, r#""plain""#, r#""a\"b\\c\/\b\f\n\r\t\u0000\u00e4\ud83d\ude00ä""#, r#""\\""#]
        {
            assert_eq!(text(quoted.as_bytes()), serde_json::from_str::<String>(quoted).unwrap());
        }
    }
}
