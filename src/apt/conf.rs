//! The text of apt.conf(5), in both of its forms.

/// The largest number of settings of one file that are read.
const MOST: usize = 100_000;

/// Every setting of a configuration file: its name with `::` between the parts, and its value. An item of a list has the
/// list's name with `::` after it. Nothing is an error: apt itself would say so.
pub fn settings(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut tokens = Tokens { rest: text };
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(word) => words.push(word),
            Token::Open => scopes.push(words.drain(..).next().unwrap_or_default()),
            Token::Close => {
                words.clear();
                scopes.pop();
            }
            Token::End => {
                let name = |last: &str| {
                    scopes.iter().map(String::as_str).chain([last]).collect::<Vec<_>>().join("::")
                };
                match words.as_slice() {
                    [key, value] => found.push((name(key), value.clone())),
                    [value] if !scopes.is_empty() => found.push((name(""), value.clone())),
                    _ => {}
                }
                words.clear();
            }
        }
        if found.len() >= MOST {
            break;
        }
    }
    found
}

/// A piece of apt.conf(5).
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

struct Tokens<'t> {
    rest: &'t str,
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<Token> {
        loop {
            self.rest = self.rest.trim_start();
            let first = self.rest.chars().next()?;
            let comment = if self.rest.starts_with("//") || first == '#' {
                Some("\n")
            } else if self.rest.starts_with("/*") {
                Some("*/")
            } else {
                None
            };
            if let Some(end) = comment {
                self.rest = self.rest.split_once(end).map_or("", |(_, rest)| rest);
                continue;
            }
            let single = match first {
                '{' => Some(Token::Open),
                '}' => Some(Token::Close),
                ';' => Some(Token::End),
                _ => None,
            };
            if let Some(token) = single {
                self.rest = self.rest.get(1..).unwrap_or_default();
                return Some(token);
            }
            if let Some(quoted) = self.rest.strip_prefix('"') {
                let (word, rest) = quoted.split_once('"').unwrap_or((quoted, ""));
                self.rest = rest;
                return Some(Token::Word(word.to_owned()));
            }
            let end =
                self.rest.find(|c: char| c.is_whitespace() || "{};\"".contains(c)).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(Token::Word(word.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::settings;

    #[test]
    fn both_forms_comments_and_lists() {
        let text = "APT::Periodic::Enable \"1\"; // on\n\
                    APT { Periodic { Unattended-Upgrade \"7\"; }; };\n\
                    /* Unattended-Upgrade::Package-Blacklist { \"no\"; }; */\n\
                    Unattended-Upgrade::Package-Blacklist {\n  # \"never\";\n  \"linux-\";\n  \"docker.io\";\n};\n";
        let found = settings(text);
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            found,
            [
                ("APT::Periodic::Enable", "1"),
                ("APT::Periodic::Unattended-Upgrade", "7"),
                ("Unattended-Upgrade::Package-Blacklist::", "linux-"),
                ("Unattended-Upgrade::Package-Blacklist::", "docker.io"),
            ]
        );
        for odd in ["", "}", "{", "\"", ";;;", "a b c;", "x {"] {
            assert_eq!(settings(odd), [], "{odd}");
        }
    }
}
