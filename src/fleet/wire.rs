//! What travels to a host on standard input: the bundle, and secrets that never touch a disk.
//!
//! Form: the eight bytes `BEDPLATE`, the header's length (32 bit, big endian), the header as JSON,
//! then secrets and credentials, then the bundle as tar, then the content that is carried along as
//! [`crate::lock::bundle::carried`] has it, each as long as the header says. Before that, the same request without
//! secrets and content asks what the host lacks (`receive --lacks`).

use std::{collections::BTreeSet, io::Read};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    digest::Digest,
    error::{Doing as _, Error, Result},
    host::secrets::Frame,
    lock::bundle::Bundle,
};

const MAGIC: &[u8; 8] = b"BEDPLATE";
/// Size limit of the header, in bytes.
const HEADER_LIMIT: u32 = 64 << 10;
/// Size limit of secrets and credentials, in bytes: they are short.
const FRAME_LIMIT: u32 = 4 << 20;
/// Size limit of the bundle, in bytes.
const BUNDLE_LIMIT: u64 = 256 << 20;

/// Size limit of the content, in bytes: far above any host's disk, far below what a counter holds.
const CONTENT_LIMIT: u64 = 1 << 46;
/// Size limit of the answer to what a host lacks, in bytes: some ten thousand digests.
const ANSWER_LIMIT: usize = 1 << 20;

/// What the far end is to do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Print the plan, change nothing.
    pub dry_run: bool,
    /// Reboot when one is needed.
    pub reboot: bool,
    /// Leave the checks out.
    pub no_check: bool,
    /// Packages that may go back, although that may endanger the host.
    #[serde(default)]
    pub allow: Vec<String>,
    /// What would be carried along: for a plan that is only looked at.
    #[serde(default)]
    pub carries: Carries,
}

/// Kinds of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carries {
    /// The lock's packages.
    pub packages: bool,
    /// The lock's images.
    pub images: bool,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub options: Options,
    /// The pinned profile.
    pub bundle: Bundle,
    /// Secrets and registry credentials, resolved on the operator's side.
    pub frame: Frame,
    /// Length of the content that follows, in bytes; 0: none.
    pub content: u64,
}

/// What a host lacks of what a lock names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lacks {
    /// Version of this form.
    pub schema: u32,
    /// The digests.
    pub lacks: BTreeSet<Digest>,
}

impl Lacks {
    /// Reads a host's answer.
    ///
    /// # Errors
    /// It is none.
    pub fn read(answer: &str) -> Result<Self> {
        let wrong = || {
            Error::failed("the host did not say what it lacks")
                .hint("run the same command again with `-vv`, and look at what the host says")
        };
        if answer.len() > ANSWER_LIMIT {
            return Err(wrong());
        }
        serde_json::from_str(answer).map_err(|error| wrong().because(error))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: String,
    options: Options,
    /// Length of the frame, in bytes.
    frame: u32,
    /// Length of the bundle, in bytes.
    bundle: u64,
    /// Length of the content, in bytes.
    content: u64,
}

impl Request {
    /// The bytes for the far end's standard input; the content follows on them.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>> {
        let bundle = self.bundle.to_tar();
        let frame = self.frame.encode()?;
        let length = |length: usize, limit: u32| {
            u32::try_from(length)
                .ok()
                .filter(|length| *length <= limit)
                .ok_or_else(|| Error::failed("the secrets are too large to send"))
        };
        let header = Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            options: self.options.clone(),
            frame: length(frame.len(), FRAME_LIMIT)?,
            bundle: bundle.len() as u64,
            content: self.content,
        };
        let header = serde_json::to_vec(&header).doing(|| "writing the request failed")?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(12 + header.len() + frame.len() + bundle.len()));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&length(header.len(), HEADER_LIMIT)?.to_be_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&frame);
        bytes.extend_from_slice(&bundle);
        Ok(bytes)
    }

    /// Reads a request, up to where its content begins. Bounded: hostile lengths are refused before anything is
    /// allocated.
    ///
    /// # Errors
    /// It is not a request, was made by another version, is cut short, or holds no valid bundle.
    pub fn read(from: &mut dyn Read) -> Result<Self> {
        let wrong = || {
            Error::usage("standard input is not a request of `bedplate provision --host`")
                .hint("run `bedplate provision --host USER@NAME` on your own machine instead")
        };
        let cut =
            || Error::failed("the request was cut short").hint("check the connection, and run it again");
        let mut start = [0; 12];
        from.read_exact(&mut start).map_err(|_| wrong())?;
        let (magic, length) = start.split_at(8);
        let length = u32::from_be_bytes(length.try_into().map_err(|_| wrong())?);
        if magic != MAGIC || length > HEADER_LIMIT {
            return Err(wrong());
        }
        let mut header = vec![0; length as usize];
        from.read_exact(&mut header).map_err(|_| cut())?;
        let header: Header = serde_json::from_slice(&header)
            .map_err(|_| Error::failed("the request was made by another version of bedplate"))?;
        if header.version != env!("CARGO_PKG_VERSION") {
            return Err(Error::failed(format!(
                "the request was made by bedplate {}, this is {}",
                header.version,
                env!("CARGO_PKG_VERSION")
            )));
        }
        if header.frame > FRAME_LIMIT || header.bundle > BUNDLE_LIMIT || header.content > CONTENT_LIMIT {
            return Err(wrong());
        }
        let mut frame = Zeroizing::new(vec![0; header.frame as usize]);
        from.read_exact(&mut frame).map_err(|_| cut())?;
        let mut bundle = Vec::new();
        from.take(header.bundle).read_to_end(&mut bundle).doing(|| "reading the bundle failed")?;
        if bundle.len() as u64 != header.bundle {
            return Err(cut());
        }
        Ok(Self {
            options: header.options,
            bundle: Bundle::from_tar(&bundle)?,
            frame: Frame::decode(&frame)?,
            content: header.content,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_request_is_refused() {
        for bytes in
            [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"BEDPLATE\xff\xff\xff\xff", b"BEDPLATE\0\0\0\x09{}"]
        {
            assert!(Request::read(&mut &*bytes).is_err());
        }
    }

    #[test]
    fn a_request_cut_short_says_so() {
        let header = br#"{"version":"VERSION","options":{"dry_run":false,"reboot":false,"no_check":false},"frame":9,"bundle":0,"content":0}"#;
        let header = String::from_utf8_lossy(header).replace("VERSION", env!("CARGO_PKG_VERSION"));
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(b"hf_se");
        let error = Request::read(&mut &*bytes).unwrap_err();
        assert!(error.message().contains("cut short"), "{error:?}");
        assert!(!format!("{error:?}").contains("hf_se"));
    }

    fn request(content: u64) -> Vec<u8> {
        let bundle = Bundle::assemble("p.toml", "schema = 1\n", "version = 1\n", BTreeMap::new()).unwrap();
        let request = Request { options: Options::default(), bundle, frame: Frame::default(), content };
        request.to_bytes().unwrap().to_vec()
    }

    #[test]
    fn what_follows_a_request_is_left_for_its_reader() {
        let mut bytes = request(5);
        bytes.extend_from_slice(b"abcde");
        let mut from = bytes.as_slice();
        let read = Request::read(&mut from).unwrap();
        assert_eq!((read.content, from), (5, &b"abcde"[..]));
        assert_eq!(read.options.carries, Carries::default());
    }

    #[test]
    fn a_request_cut_anywhere_is_refused() {
        let bytes = request(5);
        for end in 0..bytes.len() {
            assert!(Request::read(&mut &bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for (name, value) in [("content", u64::MAX), ("content", CONTENT_LIMIT + 1), ("bundle", u64::MAX)] {
            let request = request(5);
            let length = u32::from_be_bytes(request[8..12].try_into().unwrap()) as usize;
            let mut header: serde_json::Value = serde_json::from_slice(&request[12..12 + length]).unwrap();
            header[name] = value.into();
            let header = header.to_string();
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(header.as_bytes());
            assert!(Request::read(&mut bytes.as_slice()).unwrap_err().message().contains("not a request"));
        }
    }

    #[test]
    fn answers_are_read() {
        let digest = Digest::of("x");
        let answer = format!("{{\"schema\": 1, \"lacks\": [\"{digest}\"]}}\n");
        assert_eq!(Lacks::read(&answer).unwrap().lacks, BTreeSet::from([digest]));
        for wrong in ["", "[]", "{\"schema\": 1, \"lacks\": [\"sha256:x\"]}", &" ".repeat(ANSWER_LIMIT + 1)] {
            assert!(Lacks::read(wrong).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile_requests_never_panic(at in 0_usize..4000, with in any::<u8>(), junk in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = request(1024);
            let at = at % bytes.len();
            bytes[at] = with;
            let _ = Request::read(&mut bytes.as_slice());
            let _ = Request::read(&mut junk.as_slice());
        }
    }
}
