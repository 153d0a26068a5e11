//! OpenPGP keys in a home of their own, and what they sign: GnuPG's own work.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use jiff::{Span, Timestamp};
use tempfile::TempDir;

/// A key ring of secret keys; its agent ends with this value.
pub(crate) struct Keys {
    home: TempDir,
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ =
            Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
    }
}

/// How something is signed.
#[derive(Clone, Copy)]
pub(crate) struct Signing<'a> {
    /// Names of the keys.
    pub(crate) by: &'a [&'a str],
    /// When, in days from now.
    pub(crate) day: i64,
    /// Days after which the signature is void.
    pub(crate) expires: Option<u32>,
    pub(crate) digest: &'a str,
}

impl<'a> Signing<'a> {
    pub(crate) fn by(by: &'a [&'a str]) -> Self {
        Self { by, day: 0, expires: None, digest: "SHA512" }
    }
}

/// The moment that is so many days away.
pub(crate) fn day(days: i64) -> Timestamp {
    Timestamp::now() + Span::new().hours(24 * days)
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    /// One with a good key of this name.
    pub(crate) fn with(name: &str) -> Self {
        let keys = Self::new();
        keys.make(name);
        keys
    }

    /// Makes a key that is a hundred days old and does not expire. Returns its fingerprint.
    pub(crate) fn make(&self, name: &str) -> String {
        self.make_as(name, "ed25519", -100, "never")
    }

    /// Makes a key of an algorithm, on a day, for so long as GnuPG says it (`10d`, `never`).
    pub(crate) fn make_as(&self, name: &str, algorithm: &str, made: i64, expires: &str) -> String {
        let time = format!("--faked-system-time={}", moment(made));
        self.gpg(&[&time, "--quick-generate-key", name, algorithm, "sign", expires], &[]);
        self.fingerprint(name)
    }

    pub(crate) fn fingerprint(&self, name: &str) -> String {
        let listed = self.gpg(&["--with-colons", "--list-keys", &format!("={name}")], &[]);
        let listed = String::from_utf8(listed).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// Revokes a key with the certificate that GnuPG made beside it.
    pub(crate) fn revoke(&self, name: &str) {
        let path = self.home.path().join(format!("openpgp-revocs.d/{}.rev", self.fingerprint(name)));
        // A colon stands before the armor so that nobody imports it by mistake.
        let text = std::fs::read_to_string(path).unwrap().replace(":-----BEGIN", "-----BEGIN");
        self.gpg(&["--import"], text.as_bytes());
    }

    /// The public keys of these names, armored.
    pub(crate) fn armored(&self, names: &[&str]) -> Vec<u8> {
        self.export(names, &["--armor"])
    }

    /// The public keys of these names, binary.
    pub(crate) fn binary(&self, names: &[&str]) -> Vec<u8> {
        self.export(names, &[])
    }

    fn export(&self, names: &[&str], more: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| format!("={name}")).collect();
        let mut arguments = more.to_vec();
        arguments.push("--export");
        arguments.extend(names.iter().map(String::as_str));
        self.gpg(&arguments, &[])
    }

    /// The text within a clear signature.
    pub(crate) fn clear(&self, text: &str, signing: Signing<'_>) -> Vec<u8> {
        self.sign("--clear-sign", text, signing)
    }

    /// A signature apart from its text, armored.
    pub(crate) fn detached(&self, text: &str, signing: Signing<'_>) -> Vec<u8> {
        self.sign("--detach-sign", text, signing)
    }

    fn sign(&self, how: &str, text: &str, signing: Signing<'_>) -> Vec<u8> {
        let time = format!("--faked-system-time={}", moment(signing.day));
        let expires = signing.expires.map(|days| format!("--default-sig-expire={days}d"));
        let by: Vec<String> = signing.by.iter().map(|name| format!("--local-user={name}")).collect();
        let mut arguments = vec!["--armor", "--digest-algo", signing.digest, &time];
        arguments.extend(expires.as_deref());
        arguments.extend(by.iter().map(String::as_str));
        arguments.push(how);
        self.gpg(&arguments, text.as_bytes())
    }

    fn gpg(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--batch", "--yes", "--no-tty", "--quiet", "--pinentry-mode=loopback", "--passphrase="])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gpg (package gnupg) is installed");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {arguments:?}: {said}");
        output.stdout
    }
}

/// A day as GnuPG's `--faked-system-time` wants it.
fn moment(days: i64) -> String {
    day(days).strftime("%Y%m%dT%H%M%S").to_string()
}
