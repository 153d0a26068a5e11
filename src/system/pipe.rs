//! From code that writes and blocks to code that awaits: a writer into a channel of pieces.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use crate::error::Result;

/// Bytes of a piece; the last may have fewer.
const PIECE: usize = 256 << 10;

/// A writer into a channel. Blocks while nobody takes pieces, and fails with `BrokenPipe` once nobody will. What is left
/// goes out with the last flush.
pub struct Pipe {
    sender: Sender<Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Pipe {
    /// A writer into this channel; not for a thread that must not block.
    pub fn new(sender: Sender<Result<Bytes>>) -> Self {
        Self { sender, buffer: Vec::with_capacity(PIECE) }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE)));
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
