//! What travels to a host on standard input: the bundle, and secrets that never touch a disk.
//!
//! Form: the eight bytes `BEDPLATE`, the header's length (32 bit, big endian), the header as JSON,
//! then secrets and credentials, then the bundle as tar, each as long as the header says.

use std::io::Read;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
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
}

impl Request {
    /// The bytes for the far end's standard input.
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

    /// Reads a request. Bounded: hostile lengths are refused before anything is allocated.
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
        if header.frame > FRAME_LIMIT || header.bundle > BUNDLE_LIMIT {
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
        })
    }
}

#[cfg(test)]
mod tests {
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
        let header = br#"{"version":"VERSION","options":{"dry_run":false,"reboot":false,"no_check":false},"frame":9,"bundle":0}"#;
        let header = String::from_utf8_lossy(header).replace("VERSION", env!("CARGO_PKG_VERSION"));
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(b"hf_se");
        let error = Request::read(&mut &*bytes).unwrap_err();
        assert!(error.message().contains("cut short"), "{error:?}");
        assert!(!format!("{error:?}").contains("hf_se"));
    }
}
