//! Compressed indices, bounded.

use std::io::{self, Read};

/// The largest index, unpacked, in bytes.
pub(super) const LARGEST: u64 = 1 << 30;
/// The largest compressed index, in bytes.
pub(super) const LARGEST_PACKED: u64 = 256 << 20;
/// Most memory a decompressor may want, in bytes; `xz -9` needs a third of it.
const MEMORY: u64 = 192 << 20;
/// Largest zstd window, as a power of two.
const WINDOW: u32 = 27;

/// How an index is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Xz,
    Zstd,
    Gzip,
    Plain,
}

impl Form {
    /// The smallest first.
    pub(super) const ALL: [Self; 4] = [Self::Xz, Self::Zstd, Self::Gzip, Self::Plain];

    /// The end of its name.
    pub(super) fn end(self) -> &'static str {
        match self {
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::Plain => "",
        }
    }
}

/// The content of an index, of at most `limit` bytes; a longer one is cut one byte later.
///
/// # Errors
/// It is not of that form, or is cut short.
pub(super) fn unpack(form: Form, packed: Vec<u8>, limit: u64, expected: usize) -> io::Result<Vec<u8>> {
    let input = packed.as_slice();
    let mut reader: Box<dyn Read + '_> = match form {
        Form::Plain => return Ok(packed),
        Form::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Form::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Form::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(WINDOW)?;
            Box::new(decoder)
        }
    };
    let mut content = Vec::with_capacity(expected);
    reader.by_ref().take(limit.saturating_add(1)).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pack(form: Form, content: &[u8]) -> Vec<u8> {
        match form {
            Form::Plain => content.to_vec(),
            Form::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Form::Xz => {
                let mut packed = Vec::new();
                liblzma::read::XzEncoder::new(content, 1).read_to_end(&mut packed).unwrap();
                packed
            }
            Form::Zstd => zstd::encode_all(content, 1).unwrap(),
        }
    }

    #[test]
    fn every_form_bounded_and_whole() {
        let content = b"Package: a\n".repeat(5000);
        for form in Form::ALL {
            let packed = pack(form, &content);
            assert_eq!(unpack(form, packed.clone(), 1 << 20, 0).unwrap(), content, "{form:?}");
            if form != Form::Plain {
                assert_eq!(unpack(form, packed.clone(), 1000, 0).unwrap().len(), 1001, "{form:?}");
                assert!(unpack(form, packed[..packed.len() / 2].to_vec(), 1 << 20, 0).is_err(), "{form:?}");
                assert!(unpack(form, b"<html>".to_vec(), 1 << 20, 0).is_err(), "{form:?}");
            }
        }
    }
}
