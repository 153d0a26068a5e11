//! Doors for the fuzz targets, which are outside of the crate: there only in a fuzzer's build.

use jiff::Timestamp;

use super::{
    release::{Expected, Release},
    signature::Keyring,
};

/// Reads the text of a release file, and holds it against a suite and a clock.
pub fn release(text: &str) {
    if let Ok(release) = Release::parse(text, "the release file") {
        let now = Timestamp::UNIX_EPOCH;
        let expected = Expected { suite: Some("trixie"), now, at: now, not_before: Some(now) };
        let _ = release.check(expected, "the release file");
        let _ = (release.has_component("main"), release.has_architecture("amd64"));
    }
}

/// Reads certificates, and holds a text with its signatures within against them. The first line that is empty parts
/// the two, and signed texts begin with a line of their own.
pub fn signed(bytes: &[u8]) {
    const BEGIN: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
    let at = memchr::memmem::find(bytes, BEGIN).unwrap_or(bytes.len());
    let (certificates, message) = bytes.split_at(at);
    if let Ok(keyring) = Keyring::parse(certificates, "the keyring") {
        let _ = keyring.inline(message, "the release file", Timestamp::UNIX_EPOCH);
        let _ = keyring.detached(certificates, message, "the release file", Timestamp::UNIX_EPOCH);
    }
}
