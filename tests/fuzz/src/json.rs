//! A plain reading of JSON into a tree, by recursion: what decoders are compared with.

/// Deepest nesting.
const MAX_DEPTH: usize = 127;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// Members in their order, repetitions included.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The document that `bytes` are, or nothing where they are none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 0 };
        let value = reader.value(0)?;
        reader.space();
        (reader.at == bytes.len()).then_some(value)
    }

    /// The members, if it is an object in which none is repeated.
    #[must_use]
    pub fn members(&self) -> Option<&[(String, Self)]> {
        let Self::Object(members) = self else { return None };
        let repeated = |at: usize| members[..at].iter().any(|(name, _)| *name == members[at].0);
        (!(0..members.len()).any(repeated)).then_some(members)
    }

    /// The member of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.members()?.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The number that it is.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        let Self::Number(text) = self else { return None };
        text.parse().ok()
    }

    /// The text that it is.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let Self::Text(text) = self else { return None };
        Some(text)
    }

    /// Whether a number in it, however deep, is past the range of an f64.
    #[must_use]
    pub fn overflows(&self) -> bool {
        match self {
            Self::Number(_) => self.number().is_some_and(f64::is_infinite),
            Self::List(items) => items.iter().any(Self::overflows),
            Self::Object(members) => members.iter().any(|(_, value)| value.overflows()),
            _ => false,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.space();
        match self.peek()? {
            b'{' => self.object(depth + 1),
            b'[' => self.list(depth + 1),
            b'"' => self.string().map(Json::Text),
            b't' => self.word("true").map(|()| Json::Bool(true)),
            b'f' => self.word("false").map(|()| Json::Bool(false)),
            b'n' => self.word("null").map(|()| Json::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        word.bytes().try_for_each(|byte| self.eat(byte).ok_or(())).ok()
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        let mut members = Vec::new();
        self.items(b'{', b'}', depth, &mut |reader| {
            let name = reader.string()?;
            reader.space();
            reader.eat(b':')?;
            members.push((name, reader.value(depth)?));
            Some(())
        })?;
        Some(Json::Object(members))
    }

    fn list(&mut self, depth: usize) -> Option<Json> {
        let mut items = Vec::new();
        self.items(b'[', b']', depth, &mut |reader| {
            items.push(reader.value(depth)?);
            Some(())
        })?;
        Some(Json::List(items))
    }

    fn items(
        &mut self,
        open: u8,
        close: u8,
        depth: usize,
        item: &mut dyn FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.eat(open)?;
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        if self.eat(close).is_some() {
            return Some(());
        }
        loop {
            self.space();
            item(self)?;
            self.space();
            if self.eat(close).is_some() {
                return Some(());
            }
            self.eat(b',')?;
        }
    }

    fn number(&mut self) -> Option<Json> {
        let start = self.at;
        let _ = self.eat(b'-');
        let first = self.peek()?;
        let whole = self.digits()?;
        if first == b'0' && whole > 1 {
            return None;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        String::from_utf8(self.bytes[start..self.at].to_vec()).ok().map(Json::Number)
    }

    /// Passes digits, one at least; how many.
    fn digits(&mut self) -> Option<usize> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(self.at - start)
    }

    fn string(&mut self) -> Option<String> {
        self.eat(b'"')?;
        let mut text = Vec::new();
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return String::from_utf8(text).ok();
                }
                b'\\' => {
                    self.at += 1;
                    let char = self.escape()?;
                    text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..0x20 => return None,
                byte => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let kind = self.peek()?;
        self.at += 1;
        Some(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                if !(0xD800..0xDC00).contains(&first) {
                    return char::from_u32(first);
                }
                self.eat(b'\\')?;
                self.eat(b'u')?;
                let second = self.unit()?.checked_sub(0xDC00).filter(|second| *second < 0x400)?;
                return char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + second);
            }
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_and_others_are_not() {
        let read = Json::read(br#" {"a": [1.5e3, "x\u00e9\ud83d\ude00", true, null, {}]} "#).unwrap();
        let Some(Json::List(items)) = read.get("a") else { panic!("{read:?}") };
        assert_eq!((items[0].number(), items[1].text()), (Some(1_500.0), Some("xé😀")));
        for bad in
            ["", "01", "1.", "[1,]", "{\"a\"}", "\"\\ud800\"", "\"\\x\"", "tru", "1 2", "\"\u{1}\"", "+1"]
        {
            assert_eq!(Json::read(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::read(&[b"[".repeat(128), b"]".repeat(128)].concat()), None);
        assert!(Json::read(br#"{"a":1,"a":2}"#).unwrap().members().is_none());
    }
}
