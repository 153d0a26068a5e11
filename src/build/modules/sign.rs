//! Signatures of kernel modules (Linux, Documentation/admin-guide/module-signing.rst): a PKCS #7 message in DER after
//! the module, then 12 bytes that say so, then a line.

use std::{io::Write, path::Path};

use crate::{
    error::{Doing, Error, Result},
    system::process::Command,
};

/// The end of a module that is signed (Linux, `include/linux/module_signature.h`, `MODULE_SIG_STRING`).
const MAGIC: &[u8] = b"~Module signature appended~\n";
/// Bytes of `struct module_signature`, the last four of them the signature's length, big-endian.
const HEADER: usize = 12;
/// `PKEY_ID_PKCS7`: the only kind the kernel takes; its place in the header.
const PKCS7: (usize, u8) = (2, 2);

/// The module without a signature.
pub(super) fn unsigned(mut module: Vec<u8>) -> Vec<u8> {
    let Some(body) = module.strip_suffix(MAGIC) else { return module };
    let Some((rest, length)) = body.split_last_chunk::<4>() else { return module };
    let length = u32::from_be_bytes(*length) as usize;
    if let Some(end) = (rest.len() + 4).checked_sub(HEADER + length) {
        module.truncate(end);
    }
    module
}

/// The module with a signature by `key` (PEM), whose certificate (PEM) is given. RSA's signatures are the same each time
/// (RFC 8017, section 8.2); nothing else of the message depends on a clock, since it has no attributes.
///
/// # Errors
/// `openssl` is not there, or cannot sign with them; a key of another kind than RSA.
pub(super) async fn signed(module: &[u8], key: &Path, certificate: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::NamedTempFile::new().doing(|| "keeping a certificate for openssl")?;
    file.write_all(certificate).doing(|| "keeping a certificate for openssl")?;
    let message = Command::new("openssl")
        .package("openssl")
        .args([
            "cms", "-sign", "-binary", "-noattr", "-nocerts", "-md", "sha256", "-outform", "DER", "-signer",
        ])
        .arg(file.path().to_string_lossy())
        // No passphrase is asked for: the key is one that a build can use alone.
        .args(["-passin", "pass:", "-inkey"])
        .arg(key.to_string_lossy())
        .stdin_bytes(module)
        .limit(1 << 20)
        .run()
        .await?
        .check()?;
    let message = message.stdout;
    if message.first() != Some(&0x30) {
        return Err(Error::failed("openssl made no signature"));
    }
    let mut header = [0; HEADER];
    header[PKCS7.0] = PKCS7.1;
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    header[HEADER - 4..].copy_from_slice(&length.to_be_bytes());
    Ok([module, &message, &header, MAGIC].concat())
}

#[cfg(test)]
mod tests {
    use std::process::{Command as Child, Stdio};

    use super::*;

    #[tokio::test]
    async fn openssl_takes_the_signature_for_the_modules() {
        let dir = tempfile::tempdir().unwrap();
        let (key, certificate) = (dir.path().join("key"), dir.path().join("crt"));
        let made = Child::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=modules",
                "-days",
                "9",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let text = crate::system::files::read_text(&certificate, 1 << 20).unwrap();
        let module = b"\x7fELF and so on".to_vec();
        let one = signed(&module, &key, text.as_bytes()).await.unwrap();
        assert_eq!(one, signed(&module, &key, text.as_bytes()).await.unwrap(), "the same each time");
        assert!(one.starts_with(&module) && one.ends_with(MAGIC));
        assert_eq!(unsigned(one.clone()), module);
        let message = &one[module.len()..one.len() - MAGIC.len() - HEADER];
        let (signature, content) = (dir.path().join("sig"), dir.path().join("module"));
        for (path, bytes) in [(&signature, message), (&content, module.as_slice())] {
            crate::system::files::write_output(path, bytes, 0o600).unwrap();
        }
        let verified = Child::new("openssl")
            .args(["cms", "-verify", "-binary", "-inform", "DER", "-noverify", "-certfile"])
            .args([&certificate, &std::path::PathBuf::from("-content"), &content])
            .arg("-in")
            .arg(&signature)
            .output()
            .unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        assert_eq!(verified.stdout, module);
        let error = signed(&module, &dir.path().join("none"), text.as_bytes()).await.unwrap_err();
        assert!(error.message().contains("openssl"), "{error:?}");
    }

    #[test]
    fn what_is_no_signature_stays() {
        for text in [b"".as_slice(), b"module", MAGIC, b"\xff\xff\xff\xff~Module signature appended~\n"] {
            assert_eq!(unsigned(text.to_vec()), text);
        }
    }
}
