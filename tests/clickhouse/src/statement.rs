//! What a query's text is, and how it is put to the engine.
//!
//! The engine is a client with a server inside: it reads an insert's data from a file, and writes an answer
//! into one. So an insert is rewritten to read its body from a memory file, and a query with an answer to
//! write into a pipe. Both clauses stand where the grammar wants them; where the engine can't parse the
//! rewritten text, the caller runs the original, whose error is the true one.

use crate::lexer::{Kind, Lexer, Token};

/// What a text is to this server.
#[derive(Debug)]
pub enum Statement {
    /// `INSERT … FORMAT x` whose data follow.
    Insert(Insert),
    /// What answers rows, in the format that it names.
    Query(Option<String>),
    /// What answers a few rows about something, in the format that it names.
    Brief(Option<String>),
    /// `KILL QUERY`.
    Kill(Kill),
    /// Anything else: run as it stands.
    Other,
}

/// An insert with data in a format.
#[derive(Debug)]
pub struct Insert {
    /// The text before and after the clause that names the source, without the data.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// The statement as it was written.
    pub text: Vec<u8>,
    /// Where the data begin in the text.
    pub data: usize,
}

/// A `KILL QUERY`.
#[derive(Debug)]
pub struct Kill {
    /// The condition.
    pub condition: Vec<u8>,
    /// Whether to wait until the queries have ended.
    pub sync: bool,
    /// Whether only to say which queries there are.
    pub test: bool,
    /// The format that it names.
    pub format: Option<String>,
}

/// Statements whose answer may be long.
const ANSWERING: [&str; 3] = ["SELECT", "WITH", "FROM"];
/// Statements whose answer is short. Where to write it would show in what EXPLAIN says.
const BRIEF: [&str; 6] = ["SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "CHECK"];

/// Looks at a text, of which an insert's data may be cut off.
#[must_use]
pub fn analyse(text: &[u8]) -> Statement {
    let mut tokens = Vec::new();
    let mut inserts = false;
    for token in Lexer::new(text) {
        let opens = token.depth == 0 && (inserts || tokens.len() < 2 || starts_with(&tokens, text, "WITH"));
        inserts |= opens && token.is(text, "INSERT");
        let format = inserts
            && token.depth == 0
            && tokens.last().is_some_and(|last: &Token| last.is(text, "FORMAT"))
            && token.kind == Kind::Word;
        tokens.push(token);
        if format {
            return insert(text, &tokens);
        }
    }
    let Some(first) = tokens.first().filter(|_| !inserts) else { return Statement::Other };
    let one_of = |words: &[&str]| words.iter().any(|word| first.is(text, word));
    let format = || format_at(text, &tokens).map(|at| word(text, &tokens[at + 1]));
    match first.kind {
        Kind::Sign(b'(') => Statement::Query(format()),
        _ if one_of(&ANSWERING) => Statement::Query(format()),
        _ if one_of(&BRIEF) => Statement::Brief(format()),
        _ if one_of(&["KILL"]) => kill(text, &tokens).unwrap_or(Statement::Other),
        _ => Statement::Other,
    }
}

fn starts_with(tokens: &[Token], text: &[u8], word: &str) -> bool {
    tokens.first().is_some_and(|first| first.is(text, word))
}

fn word(text: &[u8], token: &Token) -> String {
    String::from_utf8_lossy(token.text(text)).into_owned()
}

/// The index of the `FORMAT` that ends a query.
fn format_at(text: &[u8], tokens: &[Token]) -> Option<usize> {
    let last = tokens.iter().rposition(|token| token.depth == 0 && token.is(text, "FORMAT"))?;
    let ends = tokens.get(last + 1)?.kind == Kind::Word
        && tokens.get(last + 2).is_none_or(|next| next.kind == Kind::Sign(b';') || next.is(text, "SETTINGS"));
    (ends && last > 0).then_some(last)
}

/// The parts of an insert, whose last token names the format.
fn insert(text: &[u8], tokens: &[Token]) -> Statement {
    let format = tokens.len() - 2;
    let depth0 = |word: &str| tokens.iter().position(|token| token.depth == 0 && token.is(text, word));
    // `INSERT … SELECT … FORMAT x` formats nothing: the data go to `input()`, which is rewritten elsewhere.
    let selects = tokens.iter().any(|token| token.is(text, "SELECT"));
    if selects || depth0("INFILE").is_some() {
        return Statement::Other;
    }
    let after = tokens[format + 1].at.end;
    let settings = depth0("SETTINGS").unwrap_or(format);
    let trailing = trailing_settings(&text[after..]);
    let (head, middle) = text[..tokens[format].at.start].split_at(tokens[settings].at.start);
    let mut tail = middle.to_vec();
    tail.extend_from_slice(b" ");
    tail.extend_from_slice(&text[after..after + trailing]);
    tail.extend_from_slice(b" ");
    tail.extend_from_slice(&text[tokens[format].at.start..after]);
    let end = after + trailing;
    Statement::Insert(Insert {
        head: head.to_vec(),
        tail,
        text: text[..end].to_vec(),
        data: end + leading_blank(&text[end..]),
    })
}

/// The length of a `SETTINGS a = 1, b = 'x'` that stands between the format's name and the data.
fn trailing_settings(rest: &[u8]) -> usize {
    let mut tokens = Lexer::new(rest).peekable();
    if !tokens.next().is_some_and(|first| first.is(rest, "SETTINGS")) {
        return 0;
    }
    let mut end = 0;
    while let Some(name) = tokens.next() {
        let assigns = tokens.next().is_some_and(|sign| sign.kind == Kind::Sign(b'='));
        if name.kind != Kind::Word || !assigns {
            return end;
        }
        let Some(mut value) = tokens.next() else { return end };
        if value.kind == Kind::Sign(b'-') {
            let Some(number) = tokens.next() else { return end };
            value = number;
        }
        end = value.at.end;
        match tokens.peek() {
            Some(next) if next.kind == Kind::Sign(b',') => drop(tokens.next()),
            _ => return end,
        }
    }
    end
}

/// What the parser skips before the data: blanks, then one line break.
fn leading_blank(rest: &[u8]) -> usize {
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | 0x0c)).count();
    match rest[blanks..] {
        [b'\r', b'\n', ..] => blanks + 2,
        [b'\n' | b'\r', ..] => blanks + 1,
        _ => blanks,
    }
}

impl Insert {
    /// The text that reads the data from a file.
    #[must_use]
    pub fn from_file(&self, path: &str) -> Vec<u8> {
        let source = format!(" FROM INFILE '{path}' COMPRESSION 'none' ");
        [self.head.as_slice(), source.as_bytes(), &self.tail].concat()
    }
}

/// The text of a query that writes its answer into a file.
#[must_use]
pub fn into_file(text: &[u8], path: &str) -> Vec<u8> {
    let tokens: Vec<_> = Lexer::new(text).collect();
    let closing = tokens.iter().rposition(|token| token.kind != Kind::Sign(b';'));
    let end = closing.map_or(text.len(), |last| tokens[last].at.end);
    let at = format_at(text, &tokens).map_or(end, |format| tokens[format].at.start);
    let target = format!(" INTO OUTFILE '{path}' TRUNCATE ");
    [&text[..at], target.as_bytes(), &text[at..end]].concat()
}

/// Whether the text holds `INTO OUTFILE` or `FROM INFILE`, which only clients have.
#[must_use]
pub fn names_a_file(text: &[u8]) -> bool {
    let tokens: Vec<_> = Lexer::new(text).filter(|token| token.depth == 0).collect();
    tokens.windows(3).any(|three| {
        (three[0].is(text, "INTO") && three[1].is(text, "OUTFILE")
            || three[0].is(text, "FROM") && three[1].is(text, "INFILE"))
            && three[2].kind == Kind::String
    })
}

/// Where a second statement begins: a server takes one.
#[must_use]
pub fn second_statement(text: &[u8]) -> Option<usize> {
    let mut tokens = Lexer::new(text);
    let end = tokens.find(|token| token.kind == Kind::Sign(b';'))?;
    tokens.find(|token| token.kind != Kind::Sign(b';')).map(|_| end.at.start)
}

/// Whether a statement changes nothing but its session.
#[must_use]
pub fn reads(statement: &Statement, text: &[u8]) -> bool {
    match statement {
        Statement::Query(_) | Statement::Brief(_) | Statement::Kill(_) => true,
        Statement::Insert(_) => false,
        Statement::Other => {
            Lexer::new(text).next().is_some_and(|first| first.is(text, "SET") || first.is(text, "USE"))
        }
    }
}

/// The parts of `KILL QUERY WHERE … [SYNC|ASYNC|TEST] [FORMAT …]`.
fn kill(text: &[u8], tokens: &[Token]) -> Option<Statement> {
    let position = |word: &str| tokens.iter().rposition(|token| token.depth == 0 && token.is(text, word));
    if !tokens.get(1)?.is(text, "QUERY") {
        return None;
    }
    let start = tokens.iter().position(|token| token.depth == 0 && token.is(text, "WHERE"))?;
    let format = format_at(text, tokens);
    let mode = ["SYNC", "ASYNC", "TEST"].into_iter().filter_map(position).max().filter(|at| *at > start + 1);
    let semicolon = position_of_sign(tokens, b';');
    let end = [mode, format, semicolon].into_iter().flatten().min();
    let end = end.map_or(text.len(), |at| tokens[at].at.start);
    let is = |word: &str| mode.is_some_and(|at| tokens[at].is(text, word));
    Some(Statement::Kill(Kill {
        condition: text[tokens[start].at.end..end].to_vec(),
        sync: is("SYNC"),
        test: is("TEST"),
        format: format.map(|at| word(text, &tokens[at + 1])),
    }))
}

fn position_of_sign(tokens: &[Token], sign: u8) -> Option<usize> {
    tokens.iter().position(|token| token.depth == 0 && token.kind == Kind::Sign(sign))
}

/// The text with every table `system.processes` replaced.
#[must_use]
pub fn replace_processes(text: &[u8], view: impl FnOnce() -> String) -> Option<Vec<u8>> {
    let tokens: Vec<_> = Lexer::new(text).collect();
    let tables: Vec<_> = tokens
        .windows(4)
        .filter(|four| {
            (four[0].is(text, "FROM") || four[0].is(text, "JOIN") || four[0].kind == Kind::Sign(b','))
                && four[1].names(text, "system")
                && four[2].kind == Kind::Sign(b'.')
                && four[3].names(text, "processes")
        })
        .map(|four| four[1].at.start..four[3].at.end)
        .collect();
    if tables.is_empty() {
        return None;
    }
    let view = view();
    let mut replaced = Vec::with_capacity(text.len() + view.len());
    let mut done = 0;
    for table in tables {
        replaced.extend_from_slice(&text[done..table.start]);
        replaced.extend_from_slice(view.as_bytes());
        done = table.end;
    }
    replaced.extend_from_slice(&text[done..]);
    Some(replaced)
}

/// The text with every `input('structure')` of an `INSERT … SELECT … FORMAT x` reading a file instead, and
/// where its data begin.
#[must_use]
pub fn input_from_file(text: &[u8], path: &str) -> Option<(Vec<u8>, usize)> {
    let mut tokens = Vec::new();
    for token in Lexer::new(text) {
        let format = token.depth == 0
            && token.kind == Kind::Word
            && tokens.last().is_some_and(|last: &Token| last.depth == 0 && last.is(text, "FORMAT"));
        tokens.push(token);
        if format {
            break;
        }
    }
    let [.., keyword, format] = tokens.as_slice() else { return None };
    if !(starts_with(&tokens, text, "INSERT") && keyword.is(text, "FORMAT")) {
        return None;
    }
    let call =
        tokens.windows(2).position(|two| two[0].is(text, "input") && two[1].kind == Kind::Sign(b'('))?;
    let arguments = tokens[call + 1].at.end;
    let mut rewritten = text[..tokens[call].at.start].to_vec();
    rewritten.extend_from_slice(format!("file('{path}', '{}', ", word(text, format)).as_bytes());
    rewritten.extend_from_slice(&text[arguments..keyword.at.start]);
    let data = format.at.end + leading_blank(&text[format.at.end..]);
    Some((rewritten, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn parts(sql: &str) -> (String, String) {
        let Statement::Insert(insert) = analyse(sql.as_bytes()) else { panic!("{sql} is an insert") };
        (text(&insert.from_file("/f")), sql[insert.data..].to_owned())
    }

    #[test]
    fn an_insert_reads_its_data_from_a_file() {
        let infile = "FROM INFILE '/f' COMPRESSION 'none'";
        for (sql, rewritten, data) in [
            ("INSERT INTO t FORMAT Native\n\n1", format!("INSERT INTO t {infile} FORMAT Native"), "\n1"),
            (
                "insert into d.`t;x` (a, b) format CSV 1,2",
                format!("insert into d.`t;x` (a, b) {infile} format CSV"),
                "1,2",
            ),
            (
                "INSERT INTO t(a) SETTINGS x=1, y='b' FORMAT RowBinary\r\n\0",
                format!("INSERT INTO t(a) {infile} SETTINGS x=1, y='b' FORMAT RowBinary"),
                "\0",
            ),
            (
                "INSERT INTO t FORMAT CSV SETTINGS x = -1, y = 'b'\nSETTINGS",
                format!("INSERT INTO t {infile} SETTINGS x = -1, y = 'b' FORMAT CSV"),
                "SETTINGS",
            ),
            ("/* 1 */ INSERT INTO t FORMAT TSV", format!("/* 1 */ INSERT INTO t {infile} FORMAT TSV"), ""),
        ] {
            assert_eq!(parts(sql), (rewritten, data.to_owned()), "{sql}");
        }
        for other in
            ["INSERT INTO t VALUES (1)", "INSERT INTO t SELECT 1 FORMAT CSV", "INSERT INTO t (format) VALUES"]
        {
            assert!(matches!(analyse(other.as_bytes()), Statement::Other), "{other}");
        }
    }

    #[test]
    fn a_query_writes_its_answer_into_a_file() {
        let outfile = "INTO OUTFILE '/f' TRUNCATE";
        for (sql, rewritten, format) in [
            ("SELECT 1", format!("SELECT 1 {outfile}"), None),
            ("SELECT 1 FORMAT JSON ;", format!("SELECT 1 {outfile} FORMAT JSON"), Some("JSON")),
            (
                "WITH 1 AS format SELECT format FROM t SETTINGS a=1 FORMAT CSV SETTINGS b=2 -- x",
                format!(
                    "WITH 1 AS format SELECT format FROM t SETTINGS a=1 {outfile} FORMAT CSV SETTINGS b=2"
                ),
                Some("CSV"),
            ),
            ("(SELECT 1 -- FORMAT x\n)", format!("(SELECT 1 -- FORMAT x ) {outfile}"), None),
        ] {
            let Statement::Query(named) = analyse(sql.as_bytes()) else { panic!("{sql} is a query") };
            assert_eq!(named.as_deref(), format, "{sql}");
            assert_eq!(text(&into_file(sql.as_bytes(), "/f")), rewritten, "{sql}");
        }
        assert!(names_a_file(b"SELECT 1 INTO OUTFILE 'x'"));
        assert!(names_a_file(b"INSERT INTO t FROM INFILE 'x' FORMAT CSV"));
        assert!(!names_a_file(b"SELECT 'INTO OUTFILE' FROM infile"));
    }

    #[test]
    fn a_server_takes_one_statement() {
        assert_eq!(second_statement(b"SELECT 1; -- x\n;"), None);
        assert_eq!(second_statement(b"SELECT ';'; SELECT 2"), Some(10));
    }

    #[test]
    fn kill_has_a_condition_and_a_mode() {
        let parse = |sql: &str| match analyse(sql.as_bytes()) {
            Statement::Kill(kill) => (text(&kill.condition), kill.sync, kill.test, kill.format),
            other => panic!("{sql} is no kill: {other:?}"),
        };
        assert_eq!(
            parse("KILL QUERY WHERE query_id = 'SYNC' SYNC FORMAT JSON"),
            ("query_id = 'SYNC'".to_owned(), true, false, Some("JSON".to_owned()))
        );
        assert_eq!(parse("kill query where user='a' test;"), ("user='a'".to_owned(), false, true, None));
        assert_eq!(parse("KILL QUERY WHERE 1"), ("1".to_owned(), false, false, None));
        assert!(matches!(analyse(b"KILL MUTATION WHERE 1"), Statement::Other));
    }

    #[test]
    fn only_the_table_of_processes_is_replaced() {
        let replaced = replace_processes(
            b"SELECT 'FROM system.processes' FROM `system`.processes p JOIN system . \"processes\" USING x",
            || "(V)".to_owned(),
        )
        .expect("two tables");
        assert_eq!(text(&replaced), "SELECT 'FROM system.processes' FROM (V) p JOIN (V) USING x");
        assert!(replace_processes(b"SELECT * FROM system.parts", String::new).is_none());
    }

    #[test]
    fn input_reads_a_file() {
        let (rewritten, data) =
            input_from_file(b"INSERT INTO t SELECT a FROM input('a Int8') WHERE a FORMAT CSV\n1", "/f")
                .expect("input");
        assert_eq!(text(&rewritten), "INSERT INTO t SELECT a FROM file('/f', 'CSV', 'a Int8') WHERE a");
        assert_eq!(data, 63);
    }
}
