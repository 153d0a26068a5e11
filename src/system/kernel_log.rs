//! The kernel's log, as `/dev/kmsg` gives it (Linux, `Documentation/ABI/testing/dev-kmsg`).

use std::io::{ErrorKind, Read};

use super::files::Root;
use crate::error::{Error, Result};

const PATH: &str = "/dev/kmsg";
/// The ring is 16 MiB at most on any distribution's kernel (`CONFIG_LOG_BUF_SHIFT`, at most 25 bits).
const LIMIT: usize = 64 << 20;
/// A record is at most 8 KiB long; a shorter buffer makes the kernel refuse.
const RECORD: usize = 16 << 10;

/// One line of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number since boot. The first that is there is not 0 where older ones were overwritten.
    pub sequence: u64,
    /// When, in microseconds since boot.
    pub microseconds: u64,
    /// What it says.
    pub text: String,
}

/// What is in the ring, oldest first; `None` where there is no `/dev/kmsg`.
///
/// # Errors
/// It may not be read (`kernel.dmesg_restrict` and no `CAP_SYSLOG`), or reading failed.
pub fn read(root: &Root) -> Result<Option<Vec<Record>>> {
    let Some(mut log) = root.open_stream(PATH)? else { return Ok(None) };
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; RECORD]);
    while bytes.len() < LIMIT {
        match log.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // EPIPE: the next record was overwritten before it was read; the one after follows.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(error) => return Err(Error::failed(format!("reading `{PATH}`")).because(error)),
        }
    }
    Ok(Some(parse(&String::from_utf8_lossy(&bytes))))
}

/// `priority,sequence,microseconds,flags;text`; lines that begin with a space belong to the one before.
fn parse(text: &str) -> Vec<Record> {
    let record = |line: &str| {
        let (head, text) = line.split_once(';')?;
        let mut numbers = head.split(',').skip(1);
        let sequence = numbers.next()?.parse().ok()?;
        let microseconds = numbers.next()?.parse().ok()?;
        Some(Record { sequence, microseconds, text: text.to_owned() })
    };
    text.lines().filter(|line| !line.starts_with(' ')).filter_map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::files::Owner;

    #[test]
    fn records_are_read_with_their_time_and_number() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(read(&root).unwrap(), None);
        root.make_dir("/dev", 0o755, Owner::current()).unwrap();
        let text = "6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=net\n DEVICE=n1\n\
                    3,340,5690716,-,caller=T1;udevd: a; b\nnonsense\n";
        root.write("/dev/kmsg", text.as_bytes(), 0o600, Owner::current()).unwrap();
        let of =
            |sequence, microseconds, text: &str| Record { sequence, microseconds, text: text.to_owned() };
        assert_eq!(
            read(&root).unwrap().unwrap(),
            [of(339, 5_140_900, "NET: Registered protocol family 10"), of(340, 5_690_716, "udevd: a; b")]
        );
        root.remove_file("/dev/kmsg").unwrap();
        root.make_dir("/dev/kmsg", 0o755, Owner::current()).unwrap();
        assert!(read(&root).is_err());
    }
}
