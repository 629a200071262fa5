//! Which metrics and labels a PromQL expression names: enough of the language to find a name that does not exist.

use std::collections::BTreeSet;

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Metrics, each with the labels that are selected on it.
    pub selectors: Vec<(String, BTreeSet<String>)>,
    /// Labels in `by`, `without`, `on`, `ignoring` and `group_left` lists.
    pub grouped: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text,
    Number,
    Sign(char),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        if c.is_ascii_alphabetic() || c == '_' || c == '$' {
            let mut word = String::from(c);
            while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')) {
                word.push(c);
            }
            out.push(Token::Word(word));
        } else if c.is_ascii_digit() {
            while chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '.').is_some() {}
            out.push(Token::Number);
        } else if c == '"' {
            loop {
                match chars.next().ok_or("a text without an end")? {
                    '"' => break,
                    '\\' => drop(chars.next()),
                    _ => {}
                }
            }
            out.push(Token::Text);
        } else if "(){}[],=!~<>+-*/%^".contains(c) {
            out.push(Token::Sign(c));
        } else {
            return Err(format!("{c:?} is no PromQL"));
        }
    }
    Ok(out)
}

const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

/// Reads an expression.
///
/// # Errors
///
/// When it is none.
pub fn named(text: &str) -> Result<Named, String> {
    let tokens = tokens(text)?;
    let mut found = Named::default();
    let mut depth: Vec<char> = Vec::new();
    let mut at = 0;
    // Reads a list in these brackets and returns the labels in it: words in front of a comparison, or all of them.
    let labels = |from: usize, close: char| -> Result<(BTreeSet<String>, usize), String> {
        let len =
            tokens[from..].iter().position(|token| *token == Token::Sign(close)).ok_or("a list without an end")?;
        let words = tokens[from..from + len].iter().filter_map(|token| match token {
            Token::Word(word) => Some(word.clone()),
            _ => None,
        });
        Ok((words.collect(), from + len + 1))
    };
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            Token::Word(word) if LISTS.contains(&word.as_str()) => {
                if tokens.get(at) == Some(&Token::Sign('(')) {
                    let (names, next) = labels(at + 1, ')')?;
                    found.grouped.extend(names);
                    at = next;
                }
            }
            Token::Word(word) if WORDS.contains(&word.as_str()) => {}
            // A function or an aggregation, whose grouping may stand in front of its arguments.
            Token::Word(word)
                if tokens.get(at) == Some(&Token::Sign('('))
                    || matches!(tokens.get(at), Some(Token::Word(next)) if LISTS.contains(&next.as_str())
                        && ["sum", "avg", "min", "max", "count", "topk"].contains(&word.as_str())) => {}
            Token::Word(word) => {
                let mut selected = BTreeSet::new();
                if tokens.get(at) == Some(&Token::Sign('{')) {
                    (selected, at) = labels(at + 1, '}')?;
                }
                found.selectors.push((word.clone(), selected));
            }
            Token::Sign('[') => {
                // A range: a duration, or a variable of the dashboard.
                let (_, next) = labels(at, ']')?;
                at = next;
            }
            Token::Sign(c @ '(') => depth.push(*c),
            Token::Sign(')') => drop(depth.pop().ok_or("a bracket too many")?),
            Token::Sign(c @ ('{' | '}' | ']')) => return Err(format!("{c} is out of place")),
            Token::Sign(_) | Token::Number | Token::Text => {}
        }
    }
    if depth.is_empty() { Ok(found) } else { Err("a bracket without its end".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn metrics_and_labels_are_found_and_nothing_else() {
        let text = r#"histogram_quantile(0.99, sum by (le, stream) (rate(a_bucket{job="x{y}", stream=~"$s"}[$__rate_interval]))) > 1.5e3
            and on(instance) (b unless c{} offset 5m) or sum(d) without (le) / -1"#;
        let found = named(text).unwrap();
        let expected = vec![
            ("a_bucket".to_owned(), set(&["job", "stream"])),
            ("b".to_owned(), set(&[])),
            ("c".to_owned(), set(&[])),
            ("d".to_owned(), set(&[])),
        ];
        assert_eq!(found, Named { selectors: expected, grouped: set(&["le", "stream", "instance"]) });
        for bad in ["sum(a", "a)", "a{x=\"1\"", "a[5m", "a{x=\"1}", "a ; b", "a}"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
