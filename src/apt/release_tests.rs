use proptest::prelude::*;

use super::*;

const D: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn text(more: &str) -> String {
    format!(
        "Origin: O\nSuite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\nArchitectures: all \
         amd64\nComponents: updates/main contrib\n{more}SHA256:\n {D} 7 main/binary-amd64/Packages\n {D}       8 \
         main/binary-amd64/Packages.xz\n {D} 9 main/Contents-amd64\n"
    )
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn fields_are_read() {
    let release =
        Release::parse(&text("Valid-Until: Sun, 29 Nov 2026 02:09:05 UTC\nAcquire-By-Hash: yes\n"), "it")
            .unwrap();
    assert_eq!(release.date, at("2026-11-21T09:15:44Z"));
    assert_eq!(release.valid_until, Some(at("2026-11-29T02:09:05Z")));
    assert!(release.by_hash && release.separate_all);
    assert_eq!(release.priority, 500);
    assert_eq!(
        release.indices.keys().collect::<Vec<_>>(),
        ["main/binary-amd64/Packages", "main/binary-amd64/Packages.xz"]
    );
    assert_eq!(release.indices["main/binary-amd64/Packages.xz"].size, 8);
    for (component, there) in [("main", true), ("contrib", true), ("non-free", false)] {
        assert_eq!(release.has_component(component), there, "{component}");
    }
    assert!(release.has_architecture("amd64") && !release.has_architecture("arm64"));
    let flags = "NotAutomatic: yes\nButAutomaticUpgrades: yes\nNo-Support-for-Architecture-all: Packages\n";
    let release = Release::parse(&text(flags), "it").unwrap();
    assert_eq!((release.priority, release.separate_all), (100, false));
    let weak = text("").replace("SHA256:", "MD5Sum:");
    let release = Release::parse(&weak, "it").unwrap();
    assert!(release.indices.is_empty() && release.weak.contains("main/binary-amd64/Packages"));
}

#[test]
fn dates_in_the_forms_archives_write() {
    let wanted = Some(at("2026-11-07T09:05:04Z"));
    for text in [
        "Sat, 07 Nov 2026 09:05:04 UTC",
        "Sat, 07 Nov 2026 09:05:04 GMT",
        "Sat, 7 Nov 2026 09:05:04 +0000",
        "Sat, 07 Nov 2026 10:05:04 +0100",
        "Sat, 07 Nov 2026  9:05:04 UTC",
    ] {
        let text = text.replace("  9", " 09");
        assert_eq!(parse_date(&text), wanted, "{text}");
    }
    for bad in ["", "yesterday", "2026-11-07", "Sat, 31 Feb 2026 09:05:04 UTC"] {
        assert_eq!(parse_date(bad), None, "{bad}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (text, says) in [
        (text("").replace("Date", "Tade"), "no `Date`"),
        (text("Valid-Until: soon\n"), "`Valid-Until` is no date"),
        (text("") + "\nA: 1\n", "2 stanzas"),
        (text("nonsense\n"), "no control data"),
        (text("").replace(" 7 ", " x "), "a bad line"),
        (text("").replace("/Packages.xz", "/Packages"), "twice"),
    ] {
        let error = Release::parse(&text, "it").unwrap_err();
        assert!(error.message().contains(says), "{error}: {says}");
    }
}

#[test]
fn it_is_held_against_suite_and_clock() {
    let release = Release::parse(&text("Valid-Until: Sun, 29 Nov 2026 02:09:05 UTC\n"), "it").unwrap();
    let now = at("2026-11-24T00:00:00Z");
    let good = Expected { suite: Some("trixie"), now, at: now, not_before: None };
    for fine in [
        good,
        Expected { suite: Some("stable"), ..good },
        Expected { suite: Some("trixie/updates"), ..good },
        Expected { suite: None, ..good },
        Expected { not_before: Some(release.date), ..good },
        // A snapshot's time is what `Valid-Until` is held against.
        Expected { now: at("2030-01-01T00:00:00Z"), at: now, ..good },
    ] {
        release.check(fine, "it").unwrap();
    }
    let late = at("2026-12-24T00:00:00Z");
    let early = at("2026-11-21T09:15:00Z");
    for (bad, says) in [
        (Expected { suite: Some("bookworm"), ..good }, "says `stable`, `trixie`, not `bookworm`"),
        (Expected { now: late, at: late, ..good }, "expired: it was valid until 2026-11-29T02:09:05Z"),
        (Expected { now: early, at: early, ..good }, "clock says 2026-11-21T09:15:00Z"),
        (Expected { not_before: Some(at("2026-11-22T00:00:00Z")), ..good }, "the mirror is behind"),
    ] {
        let error = release.check(bad, "it").unwrap_err();
        assert!(error.message().contains(says), "{error}: {says}");
        assert!(!error.hints().is_empty());
    }
}

proptest! {
    #[test]
    fn never_panics(text in "((Date|Suite|SHA256|MD5Sum|Valid-Until|Architectures):[ a-z0-9:,/.]{0,20}\n( [0-9a-f ]{0,70}Packages(.xz)?\n){0,3}){0,6}") {
        let _ = Release::parse(&text, "it");
    }
}
