//! The page in a browser: Debian's chromium-headless-shell, which prints the document as it stands after loading.

use std::{path::Path, process::Command};

use bedplate::cli::report;
use jiff::Timestamp;
use serde_json::Value;

use super::{HOSTILE, every_outcome, leaking};

/// What a page is like in the browser, written by a script that a copy of the page is given: the page has none.
const MEASURE: &str = include_str!("measure.js");

/// The document that the browser made of a page, in a window so wide.
fn document(page: &Path, width: u32, dark: bool) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium-headless-shell")
        .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={width},900"))
        .arg(format!("--blink-settings=preferredColorScheme={}", i32::from(!dark)))
        .arg(format!("file://{}", page.display()))
        .env("HOME", profile.path())
        .output()
        .expect("tests/setup/packages.sh installs the browser");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a page is like. The copy that is measured may run scripts, so that what is planted in it could, too.
fn measured(page: &str, width: u32, dark: bool) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let policy = page.lines().find(|line| line.contains("Content-Security-Policy")).unwrap();
    let copy =
        page.replacen(policy, "", 1).replacen("</body>", &format!("<script>{MEASURE}</script></body>"), 1);
    let path = directory.path().join("page.html");
    std::fs::write(&path, copy).unwrap();
    let document = document(&path, width, dark);
    let (_, body) = document.split_once("<body>").expect(&document);
    let (body, _) = body.split_once("</body>").unwrap();
    let decoded = base64(body);
    serde_json::from_slice(&decoded).unwrap_or_else(|error| panic!("{error}: {document}"))
}

/// RFC 4648, as `btoa` writes it.
fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn the_page_is_whole_in_a_browser_and_runs_nothing() {
    let report = every_outcome();
    let page = report::html(&report, Timestamp::UNIX_EPOCH).unwrap();
    for (width, dark) in [(400, false), (1600, true)] {
        let seen = measured(&page, width, dark);
        let is = |key: &str, wanted: Value| assert_eq!(seen[key], wanted, "{key}, {width}: {seen:#}");
        is("width", width.into());
        is("dark", dark.into());
        // The findings, each a row with its header, its outcome in a word.
        is("rows", report.findings.len().into());
        is("headers", report.findings.len().into());
        is("sections", 5.into());
        is("landmarks", serde_json::json!(["header", "nav", "main", "footer"]));
        for key in ["unnamed", "targets", "ids"] {
            is(key, 0.into());
        }
        let outcomes: Vec<&str> =
            seen["outcomes"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(outcomes[..5], ["✗ fail", "? unknown", "– skipped", "✗ fail", "! warn"], "{seen:#}");
        assert_eq!(seen["causes"].as_array().unwrap().len(), 8, "{seen:#}");
        assert_eq!(seen["behind"].as_array().unwrap().len(), 4, "{seen:#}");
        // Nothing of what was planted is more than text, and nothing is fetched.
        let title = seen["title"].as_str().unwrap();
        assert!(title.starts_with("host <img") && title.ends_with("not ready – bedplate"), "{title}");
        for key in ["scripts", "media", "handlers", "fetched"] {
            is(key, 0.into());
        }
        is("addresses", serde_json::json!([]));
        let text = seen["text"].as_str().unwrap();
        assert!(text.contains(&HOSTILE.replace('\u{202e}', "\\u{202e}")), "{text}");
        assert!(!text.contains('\u{202e}'), "{text}");
        // Readable: nothing stands outside the window, and colours are apart as WCAG 2.2, 1.4.3 asks.
        is("beyond", 0.into());
        is("outside", serde_json::json!([]));
        assert!(seen["contrast"].as_f64().unwrap() >= 4.5, "{seen:#}");
    }
}

#[test]
fn a_hosts_own_words_are_only_text_in_the_page_of_the_program() {
    let name = "<img src=x onerror=document.title='hacked'>\u{202e}.env";
    let place = leaking(name);
    place.run(["doctor", "p", "--record", "facts.json"]).exits(3);
    let findings = place.run(["doctor", "p", "--facts", "facts.json", "--format", "json"]).exits(3).json();
    let ran = place.run(["doctor", "p", "--facts", "facts.json", "--format", "html"]);
    ran.exits(3);
    assert_eq!(ran.err, "");
    let seen = measured(&ran.out, 1600, false);
    assert_eq!(seen["rows"], findings["findings"].as_array().unwrap().len(), "{seen:#}");
    assert!(seen["text"].as_str().unwrap().contains("<img src=x onerror="), "{seen:#}");
    assert_eq!((&seen["title"], &seen["media"]), (&"host: not ready – bedplate".into(), &0.into()));
    // As it is sent, with its policy: the same document.
    place.put("report.html", &ran.out);
    let document = document(&place.at("report.html"), 800, false);
    assert_eq!(document.matches("<tr id=\"finding-").count(), findings["findings"].as_array().unwrap().len());
    assert!(document.contains("<title>host: not ready – bedplate</title>"), "{document}");
}
