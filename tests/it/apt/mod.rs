//! Debian archives, as they are.

mod oracle;
