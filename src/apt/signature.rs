//! Signatures of release files (RFC 9580), held against the certificates of a keyring. `pgp` does the arithmetic;
//! what makes a key or a signature good at a time is decided here.

use std::fmt::Write;

use jiff::Timestamp;
use pgp::{
    composed::{
        CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey,
    },
    crypto::hash::HashAlgorithm,
    packet::{Signature, SignatureType},
    types::{Fingerprint, KeyDetails, KeyId, Tag},
};

use crate::error::{Error, Result};

const BEGIN_CLEARTEXT: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
const BEGIN_KEY: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const BEGIN_ARMOR: &[u8] = b"-----BEGIN PGP";
/// How far a signature may lie in the future, in seconds: clocks differ.
const SLACK: i64 = 60;
/// The most signatures of one file that are looked at.
const MOST_SIGNATURES: usize = 32;

/// Certificates, and how messages name where they are from.
pub(crate) struct Keyring {
    certificates: Vec<SignedPublicKey>,
    name: String,
}

/// A text whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The signed text, its lines ended by `\n` alone.
    pub(crate) text: String,
    /// Fingerprints of the primary keys whose signatures are good, uppercase hexadecimal, sorted.
    pub(crate) signed_by: Vec<String>,
    /// When the first of these signatures or keys expires.
    pub(crate) until: Option<Timestamp>,
}

/// What a signature turned out to be. The later, the more telling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// By a key that is not in the keyring.
    Stranger(String),
    /// By a key that may not sign.
    NotForSigning(String),
    /// With a hash that is broken.
    Weak(String, String),
    /// Made in the future.
    Early(String, Timestamp),
    SignatureExpired(String, Timestamp),
    KeyExpired(String, Timestamp),
    KeyRevoked(String),
    /// The content is not what was signed.
    Bad(String),
}

/// A good signature.
struct Good {
    primary: String,
    until: Option<Timestamp>,
}

impl Keyring {
    /// Reads certificates, binary or armored. `name` is how messages name them.
    ///
    /// # Errors
    /// There is none, or what is there is no keyring.
    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let mut certificates = Vec::new();
        // What cannot be read (a key of a kind that is unknown here) is passed over: others may do.
        if let Some(at) = memchr::memmem::find(bytes, BEGIN_KEY.as_bytes()) {
            let text = String::from_utf8_lossy(bytes.get(at..).unwrap_or_default());
            for block in text.split(BEGIN_KEY).skip(1) {
                let block = format!("{BEGIN_KEY}{block}");
                if let Ok((found, _)) = SignedPublicKey::from_armor_many(block.as_bytes()) {
                    certificates.extend(found.flatten());
                }
            }
        } else if let Ok(found) = SignedPublicKey::from_bytes_many(bytes) {
            certificates.extend(found.flatten());
        }
        if !certificates.is_empty() {
            return Ok(Self { certificates, name: name.to_owned() });
        }
        let error = Error::usage(format!("`{name}` holds no OpenPGP certificate"));
        Err(if bytes.get(8..12) == Some(b"KBXf") {
            error.hint(format!(
                "it is GnuPG's own keybox: export the key with `gpg --keyring {name} --no-default-keyring --export -a \
                 > KEY.asc`"
            ))
        } else {
            error.hint("give the archive's public key, as `gpg --export` or `gpg --export --armor` write it")
        })
    }

    /// Verifies a text with its signatures within (`InRelease`). `place` names it in messages. One good signature
    /// is enough.
    ///
    /// # Errors
    /// It is not signed, or no signature of it is good at `now`: why, for the most telling one.
    pub(crate) fn inline(&self, content: &[u8], place: &str, now: Timestamp) -> Result<Verified> {
        if !content.starts_with(BEGIN_CLEARTEXT) {
            return Err(unsigned(place));
        }
        let (message, _) = CleartextSignedMessage::from_armor(content).map_err(|error| {
            Error::failed(format!("{place} is no signed text as archives have it: {error}"))
                .hint("a proxy or a login page may be in between: look at what the mirror serves")
        })?;
        let signed = message.signed_text();
        let (signed_by, until) = self.judge(message.signatures(), signed.as_bytes(), place, now)?;
        Ok(Verified { text: lines(&signed), signed_by, until })
    }

    /// Verifies a text with its signatures beside it (`Release` and `Release.gpg`).
    ///
    /// # Errors
    /// As [`Keyring::inline`].
    pub(crate) fn detached(
        &self,
        content: &[u8],
        signature: &[u8],
        place: &str,
        now: Timestamp,
    ) -> Result<Verified> {
        let mut signatures = Vec::new();
        if signature.starts_with(BEGIN_ARMOR) {
            if let Ok((found, _)) = DetachedSignature::from_armor_many(signature) {
                signatures.extend(found.take(MOST_SIGNATURES).flatten());
            }
        } else if let Ok(found) = DetachedSignature::from_bytes_many(signature) {
            signatures.extend(found.take(MOST_SIGNATURES).flatten());
        }
        if signatures.is_empty() {
            return Err(unsigned(place));
        }
        let signatures: Vec<Signature> = signatures.into_iter().map(|detached| detached.signature).collect();
        let (signed_by, until) = self.judge(&signatures, content, place, now)?;
        let text = std::str::from_utf8(content)
            .map_err(|_| Error::failed(format!("{place} is not UTF-8")).hint("tell the archive's owner"))?;
        Ok(Verified { text: lines(text), signed_by, until })
    }

    fn judge(
        &self,
        signatures: &[Signature],
        content: &[u8],
        place: &str,
        now: Timestamp,
    ) -> Result<(Vec<String>, Option<Timestamp>)> {
        let mut good = Vec::new();
        let mut found = Vec::new();
        for signature in signatures.iter().take(MOST_SIGNATURES) {
            match self.one(signature, content, now) {
                Ok(one) => good.push(one),
                Err(why) => found.push(why),
            }
        }
        if good.is_empty() {
            return Err(found
                .into_iter()
                .max()
                .map_or_else(|| unsigned(place), |why| self.refusal(&why, place, now)));
        }
        let until = good.iter().filter_map(|one| one.until).min();
        let mut signed_by: Vec<String> = good.into_iter().map(|one| one.primary).collect();
        signed_by.sort();
        signed_by.dedup();
        Ok((signed_by, until))
    }

    /// One signature, by whichever key of the keyring made it.
    fn one(&self, signature: &Signature, content: &[u8], now: Timestamp) -> Result<Good, Found> {
        let mut why = Found::Stranger(signer(signature));
        for certificate in &self.certificates {
            let primary = &certificate.primary_key;
            let judged = if named(signature, &primary.fingerprint(), &primary.legacy_key_id()) {
                Some(by(certificate, None, signature, content, now))
            } else {
                None
            };
            let by_subkeys = certificate
                .public_subkeys
                .iter()
                .filter(|subkey| named(signature, &subkey.key.fingerprint(), &subkey.key.legacy_key_id()))
                .map(|subkey| by(certificate, Some(subkey), signature, content, now));
            for judged in judged.into_iter().chain(by_subkeys) {
                match judged {
                    Ok(good) => return Ok(good),
                    Err(worse) => why = why.max(worse),
                }
            }
        }
        Err(why)
    }

    fn refusal(&self, why: &Found, place: &str, now: Timestamp) -> Error {
        let ring = &self.name;
        let another = "use another mirror, or tell the archive's owner";
        match why {
            Found::Stranger(key) => Error::failed(format!(
                "{place} is signed by the key {key}, which is not in the keyring `{ring}`"
            ))
            .hint(format!(
                "check that the address is the right one; if it is, and the key is the archive's, put its \
                 certificate into `{ring}`"
            )),
            Found::NotForSigning(key) => {
                Error::failed(format!("{place} is signed by the key {key}, which is not made for signing"))
                    .hint(another)
            }
            Found::Weak(key, hash) => Error::failed(format!(
                "the signature of {place} by the key {key} uses the weak hash {hash}, which can be forged"
            ))
            .hint("ask the archive's owner to sign with SHA-256 or better"),
            Found::Early(key, at) => Error::failed(format!(
                "the signature of {place} by the key {key} was made at {at}, which is in the future: the clock says \
                 {now:.0}"
            ))
            .hint("set the clock: `timedatectl set-ntp true`, then `timedatectl`"),
            Found::SignatureExpired(key, at) => {
                Error::failed(format!("the signature of {place} by the key {key} expired at {at}"))
                    .hint("use another mirror: this one is no longer kept up; or see whether the clock is right: `date`")
            }
            Found::KeyExpired(key, at) => Error::failed(format!(
                "{place} is signed by the key {key}, which expired at {at} by the keyring `{ring}`"
            ))
            .hint(format!("get the archive's present key into `{ring}`: update the package it is from, or fetch it anew")),
            Found::KeyRevoked(key) => {
                Error::failed(format!("{place} is signed by the key {key}, which was revoked by its owner"))
                    .hint(format!("get the archive's present key into `{ring}`, by a way that can be trusted"))
            }
            Found::Bad(key) => Error::failed(format!(
                "the signature of {place} by the key {key} is bad: the content is not what was signed"
            ))
            .hint("the mirror or something in between changed it: use another mirror"),
        }
    }
}

/// The primary key or a subkey of a certificate, as the signer of `content`.
fn by(
    certificate: &SignedPublicKey,
    subkey: Option<&SignedPublicSubKey>,
    signature: &Signature,
    content: &[u8],
    now: Timestamp,
) -> Result<Good, Found> {
    let primary = format!("{:X}", certificate.primary_key.fingerprint());
    let key = match subkey {
        Some(subkey) => format!("`{:X}` (of `{primary}`)", subkey.key.fingerprint()),
        None => format!("`{primary}`"),
    };
    let typed = matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text));
    let right = match subkey {
        Some(subkey) => signature.verify(&subkey.key, content),
        None => signature.verify(&certificate.primary_key, content),
    };
    if !typed || right.is_err() {
        return Err(Found::Bad(key));
    }
    let hash = signature.hash_alg().unwrap_or(HashAlgorithm::None);
    let strong = matches!(
        hash,
        HashAlgorithm::Sha224
            | HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512
    );
    let certified = state(certificate, now).ok_or_else(|| Found::NotForSigning(key.clone()))?;
    let bound = match subkey {
        Some(subkey) => {
            subkey_state(certificate, subkey, now).ok_or_else(|| Found::NotForSigning(key.clone()))?
        }
        None => certified,
    };
    if certified.revoked || bound.revoked {
        return Err(Found::KeyRevoked(key));
    }
    let expired = [certified.until, bound.until].into_iter().flatten().filter(|until| *until <= now).min();
    if let Some(at) = expired {
        return Err(Found::KeyExpired(key, at));
    }
    if !bound.signs {
        return Err(Found::NotForSigning(key));
    }
    let made = signature.created().map_or(0, |at| i64::from(at.as_secs()));
    let until = after(made, signature.signature_expiration_time().map_or(0, pgp::types::Duration::as_secs));
    if let Some(at) = until.filter(|until| *until <= now) {
        return Err(Found::SignatureExpired(key, at));
    }
    if made > now.as_second() + SLACK {
        return Err(Found::Early(key, Timestamp::from_second(made).unwrap_or(Timestamp::MAX)));
    }
    if !strong {
        return Err(Found::Weak(key, hash.to_string()));
    }
    Ok(Good { primary, until: [until, certified.until, bound.until].into_iter().flatten().min() })
}

/// What a key's own signatures say of it.
#[derive(Clone, Copy)]
struct State {
    revoked: bool,
    until: Option<Timestamp>,
    signs: bool,
}

/// The primary key, by the newest of its verified self-signatures. `None`: it has none.
fn state(certificate: &SignedPublicKey, now: Timestamp) -> Option<State> {
    let primary = &certificate.primary_key;
    let details = &certificate.details;
    let direct = details.direct_signatures.iter().filter(|signature| signature.verify_key(primary).is_ok());
    let of_users = details.users.iter().flat_map(|user| {
        user.signatures
            .iter()
            .filter(|signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok())
    });
    let newest =
        direct.chain(of_users).filter(|signature| !later(signature, now)).max_by_key(|one| created(one))?;
    let revoked = details.revocation_signatures.iter().any(|signature| {
        signature.typ() == Some(SignatureType::KeyRevocation) && signature.verify_key(primary).is_ok()
    });
    Some(State { revoked, until: expiry(newest, primary.created_at().as_secs()), signs: may_sign(newest) })
}

/// A subkey, by the newest of its verified bindings. `None`: it has none, or it never agreed to sign for this key.
fn subkey_state(certificate: &SignedPublicKey, subkey: &SignedPublicSubKey, now: Timestamp) -> Option<State> {
    let primary = &certificate.primary_key;
    let verified = subkey
        .signatures
        .iter()
        .filter(|signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok());
    let (revocations, bindings): (Vec<_>, Vec<_>) =
        verified.partition(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation));
    let newest = bindings.into_iter().filter(|one| !later(one, now)).max_by_key(|one| created(one))?;
    let agreed = newest
        .embedded_signature()
        .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    Some(State {
        revoked: !revocations.is_empty(),
        until: expiry(newest, subkey.key.created_at().as_secs()),
        signs: newest.key_flags().sign() && agreed,
    })
}

fn created(signature: &Signature) -> u32 {
    signature.created().map_or(0, pgp::types::Timestamp::as_secs)
}

fn later(signature: &Signature, now: Timestamp) -> bool {
    i64::from(created(signature)) > now.as_second() + SLACK
}

fn expiry(signature: &Signature, key_created: u32) -> Option<Timestamp> {
    after(i64::from(key_created), signature.key_expiration_time().map_or(0, pgp::types::Duration::as_secs))
}

/// `lasts` seconds after `start`; zero means for ever (RFC 9580, 5.2.3.13 and 5.2.3.18).
fn after(start: i64, lasts: u32) -> Option<Timestamp> {
    (lasts > 0)
        .then(|| Timestamp::from_second(start.saturating_add(i64::from(lasts))).unwrap_or(Timestamp::MAX))
}

/// Whether a primary key's flags let it sign. Without flags it may: so old keys are.
fn may_sign(signature: &Signature) -> bool {
    let flags = signature.key_flags();
    let any = flags.certify() || flags.encrypt_comms() || flags.encrypt_storage() || flags.authentication();
    flags.sign() || !any
}

/// Whether a signature says it is by this key, or does not say by which.
fn named(signature: &Signature, fingerprint: &Fingerprint, id: &KeyId) -> bool {
    let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
    (fingerprints.is_empty() && ids.is_empty())
        || fingerprints.contains(&fingerprint)
        || (fingerprints.is_empty() && ids.contains(&id))
}

/// How a signature names its key.
fn signer(signature: &Signature) -> String {
    if let Some(fingerprint) = signature.issuer_fingerprint().first() {
        return format!("`{fingerprint:X}`");
    }
    match signature.issuer_key_id().first() {
        Some(id) => {
            let mut text = String::new();
            for byte in AsRef::<[u8]>::as_ref(*id) {
                let _ = write!(text, "{byte:02X}");
            }
            format!("`{text}`")
        }
        None => "that it does not name".to_owned(),
    }
}

fn unsigned(place: &str) -> Error {
    Error::failed(format!("{place} is not signed")).hint(
        "archives without a signature are refused: use another mirror, or have the archive's owner sign it",
    )
}

/// Lines ended by `\n` alone, with exactly one at the end: the same text whether its signature was within or beside.
fn lines(text: &str) -> String {
    let mut lines = text.replace("\r\n", "\n");
    lines.truncate(lines.trim_end_matches('\n').len());
    lines.push('\n');
    lines
}
