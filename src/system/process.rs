//! Child processes: a time limit, bounded output, and secrets by standard input only.

use std::{
    fmt,
    io::ErrorKind,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// How much of the end of standard error is kept, in bytes.
const TAIL: usize = 8 * 1024;
/// Longest line [`Streaming`] gives out, in bytes; the rest of a longer one is dropped.
const LINE: usize = 64 * 1024;
/// How long output is waited for once the child has ended: something it started may keep the pipe.
const DRAIN: Duration = Duration::from_millis(500);
/// `PATH` of a child with a clean environment (Debian's default for root).
const CLEAN_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run. Its messages are asked for in English and UTF-8 (`LC_ALL=C.UTF-8`); standard
/// input is empty unless given; the process and all it starts end when the run does.
pub struct Command {
    program: String,
    arguments: Vec<(String, bool)>,
    environment: Vec<(String, Option<String>)>,
    clean: bool,
    directory: Option<PathBuf>,
    stdin: Option<Zeroizing<Vec<u8>>>,
    limit: usize,
    timeout: Duration,
    package: Option<String>,
    hush: bool,
    interactive: bool,
}

impl Command {
    /// A program by name (looked up in `PATH`) or path. Time limit 60 s, at most 16 MiB of output.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            clean: false,
            directory: None,
            stdin: None,
            limit: 16 * 1024 * 1024,
            timeout: Duration::from_mins(1),
            package: None,
            hush: false,
            interactive: false,
        }
    }

    /// Adds an argument. Never a secret: every user of the host can read arguments.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push((argument.into(), false));
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| (argument.into(), false)));
        self
    }

    /// Adds an argument that no log line and no error shows, such as the command a secret comes from.
    #[must_use]
    pub fn arg_hidden(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push((argument.into(), true));
        self
    }

    /// Sets a variable of the child's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of the child's environment.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<String>) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// Gives the child nothing of our environment but a fixed `PATH`.
    #[must_use]
    pub fn env_clean(mut self) -> Self {
        self.clean = true;
        self
    }

    /// Runs in this directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Gives these bytes on standard input: the only way for a secret. They are wiped afterwards.
    #[must_use]
    pub fn stdin_bytes(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(Zeroizing::new(content.into()));
        self
    }

    /// How long it may take in all.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// How many bytes it may print on standard output; more is an error ([`Command::run`] only).
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// The Debian package that has the program, for the error when it is missing.
    #[must_use]
    pub fn package(mut self, name: impl Into<String>) -> Self {
        self.package = Some(name.into());
        self
    }

    /// Shows nothing of what it prints in errors: for programs that handle secrets.
    #[must_use]
    pub fn hush(mut self) -> Self {
        self.hush = true;
        self
    }

    /// Lets it use the terminal (a passphrase prompt): it stays in our process group, so that only
    /// the process itself, not what it starts, is ended with the run.
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.interactive = true;
        self
    }

    /// Runs it to its end, whatever its exit status.
    ///
    /// # Errors
    /// It is missing, cannot be started, takes too long, or prints too much; it is killed then.
    pub async fn run(mut self) -> Result<Output> {
        let command = self.to_string();
        let Parts { mut child, mut guard, stdin, stdout, stderr } = self.spawn()?;
        let (mut out, mut tail) = (Vec::new(), Vec::new());
        let content = self.stdin.take();
        let limit = self.limit;
        let work = async {
            let reading = async {
                tokio::try_join!(read_limited(stdout, &mut out, limit), read_tail(stderr, &mut tail))
            };
            let feeding = feed(stdin, content);
            tokio::pin!(reading, feeding);
            let (mut read, mut fed) = (false, false);
            let status = loop {
                tokio::select! {
                    done = &mut reading, if !read => { done?; read = true; }
                    () = &mut feeding, if !fed => fed = true,
                    status = child.wait() => break status.map_err(Stopped::Io)?,
                }
            };
            if !read && let Ok(done) = timeout(DRAIN, reading).await {
                done?;
            }
            Ok(status)
        };
        let status = match timeout(self.timeout, work).await {
            Ok(Ok(status)) => {
                guard.disarm();
                status
            }
            Ok(Err(Stopped::TooMuch)) => {
                return Err(Error::failed(format!("`{command}` printed more than {limit} bytes")));
            }
            Ok(Err(Stopped::Io(error))) => {
                return Err(Error::failed(format!("running `{command}`")).because(error));
            }
            Err(_) => return Err(self.too_long(&command, &tail)),
        };
        Ok(Output { command, status, stdout: out, stderr_tail: self.shown(&tail) })
    }

    /// Runs it, and makes any exit status but 0 an error.
    ///
    /// # Errors
    /// As [`Command::run`]; also the exit status with the end of what it said.
    pub async fn check(self) -> Result<Output> {
        self.run().await?.check()
    }

    /// Starts it, to read its standard output line by line while it runs.
    ///
    /// # Errors
    /// It is missing or cannot be started.
    pub fn stream(mut self) -> Result<Streaming> {
        let command = self.to_string();
        let Parts { child, guard, stdin, stdout, stderr } = self.spawn()?;
        let content = self.stdin.take();
        let feeding = tokio::spawn(feed(stdin, content));
        let tail = tokio::spawn(async move {
            let mut tail = Vec::new();
            // An error ends the reading; what was read is kept.
            let _ = read_tail(stderr, &mut tail).await;
            tail
        });
        let deadline = Instant::now() + self.timeout;
        let lines = stdout.map(BufReader::new);
        Ok(Streaming { command, settings: self, child, guard, lines, tail, feeding, deadline })
    }

    fn spawn(&self) -> Result<Parts> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(self.arguments.iter().map(|(argument, _)| argument));
        if self.clean {
            command.env_clear().env("PATH", CLEAN_PATH);
        }
        command.env("LC_ALL", "C.UTF-8");
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if !self.interactive {
            command.process_group(0);
        }
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        tracing::debug!(command = %self, "starting");
        let mut child = command.spawn().map_err(|error| self.not_started(error))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Parts {
            guard: Guard { pid, group: !self.interactive },
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
        })
    }

    fn not_started(&self, error: std::io::Error) -> Error {
        let program = &self.program;
        if let Some(directory) = self.directory.as_deref().filter(|directory| !directory.is_dir()) {
            return Error::failed(format!("running `{program}`: no directory `{}`", directory.display()));
        }
        let by_name = !program.contains('/');
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied if by_name => {
                // Also the answer where a directory in `PATH` may not be searched (execvp(3)).
                let denied = error.kind() == ErrorKind::PermissionDenied;
                let or = if denied { ", or this user may not run it" } else { "" };
                Error::failed(format!("`{program}` is not installed{or}")).hint(match &self.package {
                    Some(package) => format!("install it: `apt install {package}`"),
                    None => "install it, or check `PATH`".to_owned(),
                })
            }
            ErrorKind::NotFound => {
                let error = Error::failed(format!("`{program}` does not exist"));
                match &self.package {
                    Some(package) => error.hint(format!("install it: `apt install {package}`")),
                    None => error,
                }
            }
            ErrorKind::PermissionDenied => Error::failed(format!("running `{program}`: permission denied"))
                .hint(format!("see whether it is executable: `ls -l {program}`")),
            _ => Error::failed(format!("running `{program}`")).because(error),
        }
    }

    /// What of standard error is shown.
    fn shown(&self, tail: &[u8]) -> String {
        if self.hush { String::new() } else { String::from_utf8_lossy(tail).trim().to_owned() }
    }

    fn too_long(&self, command: &str, tail: &[u8]) -> Error {
        let seconds = self.timeout.as_secs_f32();
        let text = format!("`{command}` took longer than {seconds} s and was ended");
        Error::failed(with_tail(text, &self.shown(tail)))
    }
}

/// The command line for people: hidden arguments as `…`.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        for (argument, hidden) in &self.arguments {
            let shown = if *hidden { "…" } else { argument.as_str() };
            let quoted = shlex::try_quote(shown).unwrap_or_else(|_| format!("{shown:?}").into());
            write!(f, " {}", if *hidden { "…" } else { quoted.as_ref() })?;
        }
        Ok(())
    }
}

/// What a child left. `Debug` shows no output: it may be a secret.
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error, at most 8 KiB; empty for a hushed command.
    pub stderr_tail: String,
    command: String,
}

impl Output {
    /// True for exit status 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Standard output as text, without the final line end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches(['\n', '\r']).to_owned()
    }

    /// Makes any exit status but 0 an error.
    ///
    /// # Errors
    /// The exit status, with the end of standard error.
    pub fn check(self) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        // "exit status: 1", "signal: 9 (SIGKILL)"
        let text = format!("`{}` failed with {}", self.command, self.status);
        Err(Error::failed(with_tail(text, &self.stderr_tail)))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({}, {}, {} bytes)", self.command, self.status, self.stdout.len())
    }
}

/// A running child whose standard output is read line by line. Dropped, it is killed.
pub struct Streaming {
    command: String,
    settings: Command,
    child: Child,
    guard: Guard,
    lines: Option<BufReader<ChildStdout>>,
    tail: JoinHandle<Vec<u8>>,
    feeding: JoinHandle<()>,
    deadline: Instant,
}

impl Streaming {
    /// The next line, without its end; `None` when there are no more.
    ///
    /// # Errors
    /// The time limit is over, or the pipe fails.
    pub async fn next_line(&mut self) -> Result<Option<String>> {
        let Some(lines) = &mut self.lines else { return Ok(None) };
        let ended = async {
            tokio::select! {
                biased;
                line = read_line(lines) => line,
                // The child is gone, but something it started keeps the pipe open.
                () = async { let _ = self.child.wait().await; tokio::time::sleep(DRAIN).await } => Ok(None),
            }
        };
        match timeout_at(self.deadline, ended).await {
            Ok(line) => {
                line.map_err(|error| Error::failed(format!("reading from `{}`", self.command)).because(error))
            }
            Err(_) => Err(self.settings.too_long(&self.command, &[])),
        }
    }

    /// Reads what is left, waits for the end, and says how it ended ([`Output::stdout`] is empty).
    ///
    /// # Errors
    /// As [`Streaming::next_line`].
    pub async fn finish(mut self) -> Result<Output> {
        while self.next_line().await?.is_some() {}
        let status = match timeout_at(self.deadline, self.child.wait()).await {
            Ok(status) => {
                status.map_err(|e| Error::failed(format!("running `{}`", self.command)).because(e))?
            }
            Err(_) => return Err(self.settings.too_long(&self.command, &[])),
        };
        self.guard.disarm();
        self.feeding.abort();
        let tail =
            timeout(DRAIN, &mut self.tail).await.ok().and_then(std::result::Result::ok).unwrap_or_default();
        self.tail.abort();
        let stderr_tail = self.settings.shown(&tail);
        Ok(Output { command: self.command, status, stdout: Vec::new(), stderr_tail })
    }
}

struct Parts {
    child: Child,
    guard: Guard,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<tokio::process::ChildStderr>,
}

/// Kills the child and all it started, unless it has ended.
struct Guard {
    pid: Option<Pid>,
    group: bool,
}

impl Guard {
    /// The child was waited for: its id may now be another's.
    fn disarm(&mut self) {
        self.pid = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // It may have ended by itself just now.
            let _ = if self.group {
                kill_process_group(pid, Signal::KILL)
            } else {
                kill_process(pid, Signal::KILL)
            };
        }
    }
}

enum Stopped {
    TooMuch,
    Io(std::io::Error),
}

fn with_tail(text: String, tail: &str) -> String {
    if tail.is_empty() { text } else { format!("{text}: {tail}") }
}

/// Writes `content` and closes the pipe. A child that does not read it all is its own affair.
async fn feed(stdin: Option<ChildStdin>, content: Option<Zeroizing<Vec<u8>>>) {
    if let (Some(mut stdin), Some(content)) = (stdin, content) {
        let _ = stdin.write_all(&content).await;
        let _ = stdin.shutdown().await;
    }
}

async fn read_limited(
    pipe: Option<impl AsyncRead + Unpin>,
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<(), Stopped> {
    let Some(pipe) = pipe else { return Ok(()) };
    let mut pipe = pipe.take(limit as u64 + 1);
    pipe.read_to_end(out).await.map_err(Stopped::Io)?;
    if out.len() > limit { Err(Stopped::TooMuch) } else { Ok(()) }
}

async fn read_tail(pipe: Option<impl AsyncRead + Unpin>, tail: &mut Vec<u8>) -> Result<(), Stopped> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = vec![0; 4096];
    loop {
        let count = pipe.read(&mut buffer).await.map_err(Stopped::Io)?;
        if count == 0 {
            return Ok(());
        }
        tail.extend_from_slice(&buffer[..count]);
        if tail.len() > TAIL {
            tail.drain(..tail.len() - TAIL);
        }
    }
}

async fn read_line(lines: &mut BufReader<ChildStdout>) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let chunk = lines.fill_buf().await?;
        if chunk.is_empty() {
            break;
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        line.extend_from_slice(&part[..part.len().min(LINE - line.len())]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        lines.consume(used);
        if end.is_some() {
            break;
        }
    }
    Ok(any.then(|| String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()))
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
