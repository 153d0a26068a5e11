//! The version order against dpkg's.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use bedplate::apt::version::{check, compare};

use super::Apt;

/// Pairs drawn from the index.
const PAIRS: usize = 100_000;
/// How many of them a plain run puts to dpkg itself, which takes one process a pair.
const BY_DPKG: usize = 1_000;

/// Versions of the index, and those that its relations name.
fn versions() -> Vec<String> {
    let mut versions = BTreeSet::new();
    for (_, text) in Apt::of("trixie", &["amd64"]).texts() {
        for line in text.lines() {
            if let Some(version) = line.strip_prefix("Version: ") {
                versions.insert(version.to_owned());
            } else if line.starts_with("Depends: ") || line.starts_with("Breaks: ") {
                let bounds = line.split('(').skip(1).filter_map(|rest| rest.split_once(')'));
                versions
                    .extend(bounds.filter_map(|(bound, _)| bound.split_once(' ')).map(|(_, v)| v.to_owned()));
            }
        }
    }
    versions.into_iter().collect()
}

/// Half of the pairs at random, half of them neighbours in text order, which differ late. The same every day that the
/// index is the same.
fn pairs(versions: &[String]) -> Vec<(&str, &str)> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    (0..PAIRS)
        .map(|number| {
            let first = next(versions.len());
            let second = if number % 2 == 0 {
                next(versions.len())
            } else {
                (first + 1 + next(3)).min(versions.len() - 1)
            };
            (versions[first].as_str(), versions[second].as_str())
        })
        .collect()
}

fn word(order: Ordering) -> &'static str {
    match order {
        Ordering::Less => "lt",
        Ordering::Equal => "eq",
        Ordering::Greater => "gt",
    }
}

/// Runs a script over lines `FIRST WORD SECOND`; it prints those that it does not agree with, and their number last.
fn disagreed(program: &str, arguments: &[&str], lines: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`{program}` cannot be run: {error}"));
    let mut input = child.stdin.take().unwrap();
    let text = lines.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_hundred_thousand_pairs_agree_with_dpkg() {
    let versions = versions();
    assert!(versions.len() > 10_000, "only {} versions in the index", versions.len());
    for version in &versions {
        check(version).unwrap_or_else(|error| panic!("{error}"));
    }
    let pairs = pairs(&versions);
    let mut lines: Vec<String> = Vec::with_capacity(PAIRS);
    let mut seen = BTreeSet::new();
    for (a, b) in &pairs {
        let order = compare(a, b);
        seen.insert(order);
        lines.push(format!("{a} {} {b}\n", word(order)));
    }
    assert_eq!(seen.len(), 3, "the pairs are below, equal and above one another");

    // dpkg's own Perl module: all of them.
    let perl = "use Dpkg::Version; my $n = 0; my %w = (-1 => 'lt', 0 => 'eq', 1 => 'gt'); while (<STDIN>) { chomp; \
                my ($a, $o, $b) = split / /; $n++; my $c = version_compare($a, $b); print \"$_\\n\" if $w{$c} ne $o; } \
                print \"$n\\n\";";
    assert_eq!(disagreed("perl", &["-e", perl], &lines.concat()), format!("{PAIRS}\n"));

    // dpkg itself.
    let full = std::env::var_os("BEDPLATE_FULL").is_some();
    let count = if full { PAIRS } else { BY_DPKG };
    let script = "n=0; while read -r a o b; do n=$((n+1)); dpkg --compare-versions \"$a\" \"$o\" \"$b\" || \
                  echo \"$a $o $b\"; done; echo $n";
    let step = PAIRS / count;
    let sample: String = lines.iter().step_by(step).map(String::as_str).collect();
    assert_eq!(disagreed("sh", &["-c", script], &sample), format!("{count}\n"));
}
