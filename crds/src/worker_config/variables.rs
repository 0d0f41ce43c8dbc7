//! `${VAR}` and `${VAR:-default}` in the text of the file.
//!
//! Only the braced form means a variable, so that a password may hold a `$`; `$${` stands for `${`.
//! Lines that are comments are left alone.

use thiserror::Error;

/// Why variables can't be replaced: one that isn't set and has no default, a name that isn't one, or a missing `}`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct InvalidVariable {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// `text` with its variables replaced.
///
/// # Errors
/// The first that can't be.
pub fn substitute<'a>(
    text: &str,
    value_of: impl Fn(&str) -> Option<&'a str>,
) -> Result<String, InvalidVariable> {
    let mut replaced = String::with_capacity(text.len());
    for (at, line) in text.split_inclusive('\n').enumerate() {
        if is_comment(line) {
            replaced.push_str(line);
            continue;
        }
        substitute_line(line, &value_of, &mut replaced)
            .map_err(|reason| InvalidVariable { line: at + 1, reason })?;
    }
    Ok(replaced)
}

/// The text of which [`substitute`] makes `text`, whatever the variables are.
#[must_use]
pub fn escape(text: &str) -> String {
    let escaped = |line: &str| if is_comment(line) { line.to_owned() } else { line.replace("${", "$${") };
    text.split_inclusive('\n').map(escaped).collect()
}

/// What looks like one; within a text over several lines it needn't be.
fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn substitute_line<'a>(
    line: &str,
    value_of: &impl Fn(&str) -> Option<&'a str>,
    replaced: &mut String,
) -> Result<(), String> {
    let mut rest = line;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            replaced.push_str(before);
            replaced.push_str("${");
            rest = &from[2..];
            continue;
        }
        replaced.push_str(before);
        let (inside, after) = from[2..].split_once('}').ok_or("a ${ has no }")?;
        let (name, default) =
            inside.split_once(":-").map_or((inside, None), |(name, text)| (name, Some(text)));
        if !is_name(name) {
            return Err(format!("${{{name}}} does not name a variable"));
        }
        // As in a shell, `:-` also replaces a variable that is set to nothing.
        let value = value_of(name).filter(|value| default.is_none() || !value.is_empty());
        let missing = || format!("the variable {name} is not set; set it, or write ${{{name}:-default}}");
        replaced.push_str(value.or(default).ok_or_else(missing)?);
        rest = after;
    }
    replaced.push_str(rest);
    Ok(())
}

fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    starts && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substituted(text: &str) -> Result<String, String> {
        let value_of = |name: &str| match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            "NESTED" => Some("${A}"),
            _ => None,
        };
        substitute(text, value_of).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_and_defaults_are_replaced_once() {
        for (text, expected) in [
            ("a: ${A}-${A}", "a: 1-1"),
            ("a: ${B:-2}", "a: 2"),
            ("a: ${A:-2}", "a: 1"),
            ("a: ${EMPTY:-2}${EMPTY}", "a: 2"),
            ("a: ${B:-}", "a: "),
            ("a: ${NESTED}", "a: ${A}"),
            ("a: pa$word $A $", "a: pa$word $A $"),
            ("a: $${A}", "a: ${A}"),
            ("# ${B}\n  # ${B\na: ${A}\n", "# ${B}\n  # ${B\na: 1\n"),
        ] {
            assert_eq!(substituted(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_escaped_means_itself() {
        for text in ["a: ${A}", "a: $${A}", "a: $$${A}${", "# ${B}\n  # ${\na: ${B\n", "a: $A $ {A}", ""] {
            assert_eq!(substituted(&escape(text)).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_named_with_its_line() {
        let unset = "line 2: the variable B is not set; set it, or write ${B:-default}";
        assert_eq!(substituted("a: 1\nb: ${B}"), Err(unset.to_owned()));
        assert!(substituted("a: ${A").unwrap_err().contains("has no }"));
        assert!(substituted("a: ${A B}").unwrap_err().contains("does not name a variable"));
        assert!(substituted("a: ${}").unwrap_err().contains("does not name a variable"));
    }
}
