//! What looks like a secret. Better one false alarm with a clear way out than one token in a lock.

use std::ops::Range;

/// Well-known tokens, from the issuers' documentation and the patterns they give to secret scanners: Hugging Face, OpenAI and
/// others, GitHub, GitLab, AWS, Slack, Google, Docker Hub, NVIDIA NGC, npm, PyPI, age; JSON web tokens.
const TOKENS: &[Token] = &[
    token("hf_", 12, 30, ""),
    token("sk-", 12, 20, ""),
    token("sk-ant-", 12, 40, "-_"),
    token("sk-proj-", 12, 40, "-_"),
    token("ghp_", 12, 36, ""),
    token("gho_", 12, 36, ""),
    token("ghs_", 12, 36, ""),
    token("ghu_", 12, 36, ""),
    token("github_pat_", 20, 40, "_"),
    token("glpat-", 12, 20, "-_"),
    token("AKIA", 16, 16, ""),
    token("ASIA", 16, 16, ""),
    token("xoxb-", 12, 20, "-"),
    token("xoxp-", 12, 20, "-"),
    token("AIza", 30, 35, "-_"),
    token("dckr_pat_", 14, 20, "-_"),
    token("nvapi-", 14, 40, "-_"),
    token("npm_", 20, 36, ""),
    token("pypi-", 20, 40, "-_"),
    token("AGE-SECRET-KEY-1", 20, 40, ""),
    // Of no form that an ordinary word could not have.
    Token { prefix: "AGE-SECRET-KEY-", shortest: 20, issued: None },
    Token { prefix: "eyJ", shortest: 40, issued: None },
];

/// A well-known kind of token.
struct Token {
    prefix: &'static str,
    /// The shortest whole word that is taken for one in files of ours.
    shortest: usize,
    /// As its issuer makes it: how many characters follow the prefix at least, and which other than letters and digits.
    issued: Option<(usize, &'static str)>,
}

const fn token(prefix: &'static str, shortest: usize, follow: usize, others: &'static str) -> Token {
    Token { prefix, shortest, issued: Some((follow, others)) }
}

/// Whether one word looks like a token: a known prefix, or a long run of mixed characters.
pub(crate) fn word_looks_secret(word: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '=');
    if word.chars().any(|c| !token(c)) {
        return false;
    }
    if known_token(word) {
        return true;
    }
    // A digest, a path or a dotted name is no secret.
    if word.len() < 32 || word.contains('/') && word.matches('/').count() > 2 || word.starts_with(['/', '.'])
    {
        return false;
    }
    let (mut digits, mut upper, mut lower) = (0, false, false);
    for c in word.chars() {
        digits += u32::from(c.is_ascii_digit());
        upper |= c.is_ascii_uppercase();
        lower |= c.is_ascii_lowercase();
    }
    let hex = word.chars().all(|c| c.is_ascii_hexdigit());
    // A readable name is words between separators; a token has long runs without any.
    let longest = word.split(['-', '_', '.', '/']).map(str::len).max().unwrap_or(0);
    longest >= 24 && digits >= 3 && (hex || upper && lower) && entropy(word) > 3.2
}

/// Whether one word has a well-known token's prefix, and is long enough and mixed enough to be one
/// (`hf_transfer` is a package).
fn known_token(word: &str) -> bool {
    TOKENS.iter().any(|token| {
        word.len() >= token.shortest
            && word.strip_prefix(token.prefix).is_some_and(|rest| {
                rest.chars().any(|c| c.is_ascii_digit() || c.is_ascii_uppercase()) || rest.len() >= 20
            })
    })
}

/// Whether one word has the very form that an issuer gives its tokens.
fn issued_token(word: &str) -> bool {
    TOKENS.iter().any(|token| {
        token.issued.zip(word.strip_prefix(token.prefix)).is_some_and(|((follow, others), rest)| {
            rest.len() >= follow
                && rest.bytes().any(|byte| byte.is_ascii_digit())
                && rest.bytes().any(|byte| byte.is_ascii_alphabetic())
                && rest.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
        })
    })
}

/// Whether a text holds a private key, or such a word.
fn holds(text: &str, token: impl Fn(&str) -> bool) -> bool {
    text.contains("PRIVATE KEY-----")
        || text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).any(token)
}

/// Whether a text holds a token of a well-known form or a private key.
pub(crate) fn holds_known_token(text: &str) -> bool {
    holds(text, known_token)
}

/// Whether a text holds a token that has the very form its issuer gives it, or a private key: for files that are not ours,
/// where an ordinary word must not count.
pub(crate) fn holds_issued_token(text: &str) -> bool {
    holds(text, issued_token)
}

/// Shannon entropy of the characters, in bits each.
fn entropy(word: &str) -> f64 {
    let mut counts = [0u32; 256];
    for byte in word.bytes() {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let total = word.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / total)
        .map(|p| -p * p.log2())
        .sum()
}

/// Whether a value holds something that looks like a token.
pub(crate) fn looks_secret(value: &str) -> bool {
    if value.contains("PRIVATE KEY-----") {
        return true;
    }
    // Credentials in an address: `https://user:password@host`.
    if let Some((_, rest)) = value.split_once("://")
        && let Some((user, _)) = rest.split('/').next().unwrap_or_default().rsplit_once('@')
        && user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
    {
        return true;
    }
    !words(value).is_empty()
}

/// Ends of variable names whose value is a secret.
const ENDS: &[&str] =
    &["TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY"];

/// Whether a variable's name says that its value is a secret.
pub(crate) fn name_says_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ENDS.iter().any(|end| name.strip_suffix(end).is_some_and(|head| head.is_empty() || head.ends_with('_')))
}

/// Whether a literal value of a variable is, or may well be, a secret.
pub(crate) fn variable_is_secret(name: &str, value: &str) -> bool {
    if looks_secret(value) {
        return true;
    }
    let harmless = value.len() < 6
        || value.contains(char::is_whitespace)
        || value.starts_with(['/', '.'])
        || value.len() < 8 && value.chars().all(|c| c.is_ascii_digit())
        || value.contains("://")
        || matches!(value, "disabled" | "enabled" | "required" | "optional");
    name_says_secret(name) && !harmless
}

/// Byte ranges of words in the text that look like tokens.
pub(crate) fn words(text: &str) -> Vec<Range<usize>> {
    let token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '=');
    let mut found = Vec::new();
    let mut check = |start: usize, end: usize| {
        let word = text.get(start..end).unwrap_or_default();
        // In `--key=VALUE` and `NAME=VALUE` the value counts.
        let value = word.trim_end_matches('=').rfind('=').map_or(0, |at| at + 1);
        // A digest stands behind `sha256:`; it is public.
        let digest =
            text.get(..start).is_some_and(|head| head.ends_with("sha256:") || head.ends_with("sha512:"));
        if !digest && word.get(value..).is_some_and(word_looks_secret) {
            found.push(start + value..end);
        }
    };
    let mut start = None;
    for (at, c) in text.char_indices() {
        match (token(c), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                check(from, at);
                start = None;
            }
            _ => {}
        }
    }
    if let Some(from) = start {
        check(from, text.len());
    }
    found
}

/// A text for a message: as it is, shortened, or hidden where it looks like a secret.
pub(crate) fn shown(text: &str) -> String {
    if looks_secret(text) {
        return "…".into();
    }
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= 60 {
        return line;
    }
    let head: String = line.chars().take(57).collect();
    format!("{head}…")
}

/// Byte ranges of what follows a name that says "secret" (`API_KEY: …`, `--api-key=…`), and of private
/// keys: found in the text alone, so that a file that cannot be parsed shows none either.
fn named_values(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices([':', '=']) {
        let head = text.get(..at).unwrap_or_default().trim_end_matches([' ', '"', '\'']);
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let name = head.rsplit(|c| !word(c)).next().unwrap_or_default().replace('-', "_");
        // `secret:NAME` itself names a secret and holds none.
        if !name_says_secret(&name) || name == "secret" {
            continue;
        }
        let rest = text.get(at + 1..).unwrap_or_default();
        let value = rest.trim_start_matches([' ', '\t', '"', '\'']);
        let start = at + 1 + rest.len() - value.len();
        let end = value.find(['\n', ',', '}', ']']).unwrap_or(value.len());
        let value = value.get(..end).unwrap_or_default();
        let reference =
            value.starts_with("secret:") || value.starts_with(['{', '[', '#']) || value.starts_with("${");
        if !reference && !value.is_empty() {
            found.push(start..start + value.trim_end().len());
        }
    }
    for (start, _) in text.match_indices("PRIVATE KEY-----") {
        let rest = text.get(start..).unwrap_or_default();
        let end = rest.find("-----END").unwrap_or(rest.len());
        found.push(start..start + end);
    }
    found
}

/// The text with every given range, and whatever else is or may be a secret, replaced by as many `*` as it
/// has bytes, so that byte ranges stay right. Line ends stay.
pub(crate) fn masked(text: &str, ranges: &[Range<usize>]) -> String {
    let mut hidden = vec![false; text.len()];
    for range in ranges.iter().cloned().chain(words(text)).chain(named_values(text)) {
        for flag in hidden.get_mut(range).into_iter().flatten() {
            *flag = true;
        }
    }
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        if hidden.get(at).copied().unwrap_or(false) && c != '\n' && c != '\r' {
            out.extend(std::iter::repeat_n('*', c.len_utf8()));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_seen_and_ordinary_values_are_not() {
        for secret in [
            "hf_abcdefghijKLMNOPqrst",
            "sk-proj-abc123def456",
            "ghp_0123456789abcdef",
            "AKIAIOSFODNN7EXAMPLE",
            "9f86d081884c7d659a2feaa0c55ad015",
            "https://me:hunter2@example.com/x",
            "--api-key=sk-0123456789abcdef",
        ] {
            assert!(looks_secret(secret), "{secret}");
        }
        for plain in [
            "Qwen/Qwen2.5-72B-Instruct",
            "meta-llama/Meta-Llama-3.1-405B-Instruct-FP8",
            "/root/.cache/huggingface/hub",
            "GPU-5f1c2d3e-aaaa-bbbb-cccc-0123456789ab",
            "vllm/vllm-openai@sha256:9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015",
            "http://dcgm-exporter:9400/metrics",
            "--enable-prefix-caching",
            "hf_transfer",
            "NVreg_PreserveVideoMemoryAllocations=1",
            "expandable_segments:True",
        ] {
            assert!(!looks_secret(plain), "{plain}");
        }
        assert!(variable_is_secret("MINER_TOKEN", "correct-horse"));
        assert!(!variable_is_secret("TOKENIZERS_PARALLELISM", "false"));
        assert!(!variable_is_secret("WANDB_API_KEY", "disabled"));
    }

    #[test]
    fn masking_keeps_lengths_and_lines() {
        let text = "a: ü\nk: hf_abcdefghijk1\n";
        let out = masked(text, std::slice::from_ref(&(3..5)));
        assert_eq!(out, "a: **\nk: ***************\n");
        assert_eq!(out.len(), text.len());
        let text = "{MINER_TOKEN: abc, b: c}\nAPI_KEY = { env = \"K\" }\n'--api-key=x y'\nk: secret:A\n";
        let wanted = "{MINER_TOKEN: ***, b: c}\nAPI_KEY = { env = \"K\" }\n'--api-key=****\nk: secret:A\n";
        assert_eq!(masked(text, &[]), wanted);
    }
}
