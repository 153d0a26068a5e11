//! What a container says and holds: its log, its end, commands run in it, files read from it.

use std::{
    collections::{HashMap, VecDeque},
    io::Read,
};

use bollard::{
    container::LogOutput,
    errors::Error as Bollard,
    exec::StartExecResults,
    models::ExecConfig,
    query_parameters::{
        DownloadFromContainerOptionsBuilder, EventsOptionsBuilder, LogsOptionsBuilder,
        UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};

use super::{
    Docker,
    failure::{Asked, failed, is_absent},
};
use crate::error::{Doing, Error, Result};

/// How many links are followed when a file is read.
const MAX_LINKS: usize = 8;
/// The largest file read out of a container, in bytes: account tables are a few KiB.
const MAX_FILE: u64 = 4 << 20;

/// Which part of a log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogsWanted {
    /// Go on as more is said.
    pub follow: bool,
    /// Only so many last lines.
    pub tail: Option<usize>,
    /// Only what was said since then, in seconds since 1970.
    pub since: Option<i64>,
    /// With Docker's time stamp before each line.
    pub timestamps: bool,
}

/// A line a container said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Whether it came on standard error.
    pub stderr: bool,
    /// The line, without its end; bytes that are not UTF-8 replaced.
    pub text: String,
}

/// How a container ended, as the daemon's events tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Exit status of its first process.
    pub exit_code: i64,
    /// Whether the kernel had ended a process of it for want of memory.
    pub oom_killed: bool,
}

/// What a command run in a container gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit status.
    pub code: i64,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Docker {
    /// A container's log, line by line.
    pub fn logs(
        &self,
        container: &str,
        wanted: LogsWanted,
    ) -> impl Stream<Item = Result<LogLine>> + Send + use<> {
        let mut options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(wanted.follow)
            .timestamps(wanted.timestamps);
        if let Some(tail) = wanted.tail {
            options = options.tail(&tail.to_string());
        }
        if let Some(since) = wanted.since {
            options = options.since(i32::try_from(since).unwrap_or(i32::MAX));
        }
        let name = container.to_owned();
        let pieces = Box::pin(self.client.logs(container, Some(options.build())));
        let state = Lines {
            pieces,
            name,
            out: String::new(),
            err: String::new(),
            ready: VecDeque::new(),
            over: false,
        };
        futures_util::stream::try_unfold(state, |mut state| async move {
            Ok(state.next().await?.map(|line| (line, state)))
        })
    }

    /// The last `count` lines of a container's log; none when it is gone.
    pub async fn last_lines(&self, container: &str, count: usize) -> Result<Vec<String>> {
        let wanted = LogsWanted { tail: Some(count), ..LogsWanted::default() };
        self.logs(container, wanted).map_ok(|line| line.text).try_collect().await
    }

    /// How a container ended last, also where Docker has started it again since: its state tells of the start then,
    /// its events still of the end. None where the daemon has forgotten: it keeps the last 256 events since its own
    /// start (moby, `daemon/events`).
    pub async fn last_end(&self, container: &str) -> Result<Option<End>> {
        let filters = HashMap::from([
            ("container", vec![container]),
            ("event", vec!["die", "oom"]),
            ("type", vec!["container"]),
        ]);
        // An end before now: the daemon answers with what it has and does not wait for more. Both are its own clock's.
        let now = std::time::SystemTime::now();
        let since_1970 = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let until = format!("{}.{:09}", since_1970.as_secs(), since_1970.subsec_nanos());
        let options = EventsOptionsBuilder::default().since("1").until(&until).filters(&filters).build();
        let mut events = std::pin::pin!(self.client.events(Some(options)));
        let (mut last, mut oom_killed) = (None, false);
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| failed(Asked::Inspect(container), error))?;
            if event.action.as_deref() == Some("oom") {
                oom_killed = true;
                continue;
            }
            let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
            if let Some(exit_code) = attributes.get("exitCode").and_then(|code| code.parse().ok()) {
                last = Some(End { exit_code, oom_killed });
            }
            oom_killed = false;
        }
        Ok(last)
    }

    /// Waits until a container does not run, and returns its exit status.
    pub async fn wait(&self, container: &str) -> Result<i64> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        // The answer begins when it ends: no time limit here, callers set theirs.
        let patient = self.client.clone().with_timeout(std::time::Duration::from_hours(24 * 365));
        let mut answers = std::pin::pin!(patient.wait_container(container, Some(options)));
        match answers.next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            Some(Err(Bollard::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(failed(Asked::Inspect(container), error)),
            None => Err(Error::failed(format!("waiting for container `{container}`: Docker broke off"))),
        }
    }

    /// Runs a command in a running container. `user` as `docker exec --user` takes it. Arguments and environment
    /// of it can be seen on the host: no secrets in them.
    pub async fn exec(&self, container: &str, command: &[&str], user: Option<&str>) -> Result<ExecOutput> {
        let asked = |error| failed(Asked::Exec(container), error);
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            user: user.map(str::to_owned),
            ..ExecConfig::default()
        };
        let made = self.client.create_exec(container, config).await.map_err(asked)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let StartExecResults::Attached { mut output, .. } =
            self.client.start_exec(&made.id, None).await.map_err(asked)?
        {
            while let Some(piece) = output.try_next().await.map_err(asked)? {
                match piece {
                    LogOutput::StdErr { message } => stderr.extend_from_slice(&message),
                    other => stdout.extend_from_slice(&other.into_bytes()),
                }
            }
        }
        let ended = self.client.inspect_exec(&made.id).await.map_err(asked)?;
        Ok(ExecOutput { code: ended.exit_code.unwrap_or(-1), stdout, stderr })
    }

    /// Reads a regular file (up to 4 MiB) of a container, running or not, following links within it. `None`: there
    /// is none.
    pub async fn read_file(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let options = DownloadFromContainerOptionsBuilder::default().path(&path).build();
            let mut tar = Vec::new();
            let mut pieces = std::pin::pin!(self.client.download_from_container(container, Some(options)));
            loop {
                match pieces.try_next().await {
                    Ok(Some(piece)) => tar.extend_from_slice(&piece),
                    Ok(None) => break,
                    Err(error) if is_absent(&error) => return Ok(None),
                    Err(error) => return Err(failed(Asked::Copy(container), error)),
                }
                if tar.len() as u64 > MAX_FILE + 4096 {
                    return Err(Error::failed(format!(
                        "reading `{path}` of container `{container}`: too large"
                    )));
                }
            }
            match first_entry(&tar).doing(|| format!("reading `{path}` of container `{container}`"))? {
                Entry::File(content) => return Ok(Some(content)),
                Entry::Link(target) => path = join(&path, &target),
                Entry::Other => return Ok(None),
            }
        }
        Err(Error::failed(format!("reading `{path}` of container `{container}`: too many links")))
    }

    /// Unpacks a tar archive under the directory `path` of a container.
    pub async fn put(&self, container: &str, path: &str, tar: Vec<u8>) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::default().path(path).build();
        self.client
            .upload_to_container(container, Some(options), bollard::body_full(Bytes::from(tar)))
            .await
            .map_err(|error| failed(Asked::Copy(container), error))
    }
}

enum Entry {
    File(Vec<u8>),
    Link(String),
    Other,
}

fn first_entry(tar: &[u8]) -> std::io::Result<Entry> {
    let mut archive = tar::Archive::new(tar);
    let Some(entry) = archive.entries()?.next() else { return Ok(Entry::Other) };
    let mut entry = entry?;
    match entry.header().entry_type() {
        tar::EntryType::Regular => {
            let mut content = Vec::new();
            entry.by_ref().take(MAX_FILE).read_to_end(&mut content)?;
            Ok(Entry::File(content))
        }
        tar::EntryType::Symlink | tar::EntryType::Link => Ok(entry
            .link_name()?
            .map_or(Entry::Other, |target| Entry::Link(target.to_string_lossy().into_owned()))),
        _ => Ok(Entry::Other),
    }
}

/// Where the link `target` at `path` leads; never above the root.
fn join(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let from = if target.starts_with('/') { "" } else { path.rsplit_once('/').map_or("", |(dir, _)| dir) };
    for part in from.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The longest line, in bytes: a longer one comes in several, since a container may never end one.
const LONGEST: usize = 1 << 20;

/// Puts the pieces Docker sends together into lines, each stream for itself.
struct Lines<S> {
    pieces: S,
    name: String,
    out: String,
    err: String,
    ready: VecDeque<LogLine>,
    over: bool,
}

impl<S: Stream<Item = std::result::Result<LogOutput, Bollard>> + Unpin> Lines<S> {
    async fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            if self.over {
                return Ok(None);
            }
            match self.pieces.next().await {
                Some(Ok(piece)) => self.take(piece),
                Some(Err(error)) if is_absent(&error) => self.over = true,
                Some(Err(error)) => return Err(failed(Asked::Logs(&self.name), error)),
                None => {
                    self.over = true;
                    for (stderr, rest) in [(false, &mut self.out), (true, &mut self.err)] {
                        if !rest.is_empty() {
                            self.ready.push_back(LogLine { stderr, text: std::mem::take(rest) });
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, piece: LogOutput) {
        let stderr = matches!(piece, LogOutput::StdErr { .. });
        let held = if stderr { &mut self.err } else { &mut self.out };
        held.push_str(&String::from_utf8_lossy(&piece.into_bytes()));
        while let Some(end) = held.find('\n') {
            let text = held[..end].trim_end_matches('\r').to_owned();
            held.drain(..=end);
            self.ready.push_back(LogLine { stderr, text });
        }
        if held.len() > LONGEST {
            self.ready.push_back(LogLine { stderr, text: std::mem::take(held) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_container() {
        assert_eq!(join("/etc/passwd", "../usr/passwd"), "/usr/passwd");
        assert_eq!(join("/etc/passwd", "/x/./y"), "/x/y");
        assert_eq!(join("/etc/passwd", "../../../../x"), "/x");
    }

    fn piece(text: &str) -> LogOutput {
        LogOutput::StdOut { message: Bytes::copy_from_slice(text.as_bytes()) }
    }

    async fn lines(pieces: Vec<LogOutput>) -> Vec<(bool, String)> {
        let mut lines = Lines {
            pieces: futures_util::stream::iter(pieces.into_iter().map(Ok)),
            name: "x".into(),
            out: String::new(),
            err: String::new(),
            ready: VecDeque::new(),
            over: false,
        };
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            seen.push((line.stderr, line.text));
        }
        seen
    }

    #[tokio::test]
    async fn a_line_without_an_end_comes_in_several() {
        let long = "x".repeat(LONGEST / 2 + 1);
        let seen = lines(vec![piece(&long), piece(&long), piece(&long), piece("\n")]).await;
        let lengths: Vec<usize> = seen.iter().map(|(_, text)| text.len()).collect();
        assert_eq!(lengths, [2 * long.len(), long.len()]);
    }

    #[tokio::test]
    async fn pieces_become_lines() {
        let oops = LogOutput::StdErr { message: Bytes::from_static(b"oops\r\n") };
        let seen = lines(vec![piece("one\ntw"), oops, piece("o\nthree")]).await;
        let wanted = [(false, "one"), (true, "oops"), (false, "two"), (false, "three")];
        assert_eq!(seen, wanted.map(|(stderr, text)| (stderr, text.to_owned())));
    }
}
