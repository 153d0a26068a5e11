//! One host over the operator's own `ssh`: its configuration, keys, agents and prompts all apply.
//!
//! Sources: ssh(1), ssh_config(5). Exit status 255 is OpenSSH's own ("an error occurred").

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
};

use crate::{
    digest::Digest,
    error::{Doing as _, Error, Result},
};

/// A host, as `ssh` names it.
pub struct Host {
    destination: String,
    config: Option<PathBuf>,
    /// Holds the control socket, so that several commands share one connection.
    control: PathBuf,
    sudo: bool,
}

/// Where the binary is on a host.
pub struct Installed {
    /// Its path.
    pub path: String,
    /// Whether it was copied just now.
    pub copied: bool,
    /// Whether it is there for one run only.
    pub passing: bool,
}

/// Where the binary is kept on a host.
pub const BINARY: &str = "/usr/local/bin/bedplate";

impl Host {
    /// Connects to `destination` (`[USER@]NAME`). `config` is what `ssh -F` takes; `control` is a
    /// private directory for the connection's socket.
    ///
    /// # Errors
    /// A destination that looks like an option, no `ssh`, no connection, no way to be root there,
    /// or a machine this binary cannot run on.
    pub async fn connect(destination: &str, config: Option<PathBuf>, control: PathBuf) -> Result<Self> {
        if destination.is_empty() || destination.starts_with('-') || destination.contains(char::is_whitespace)
        {
            return Err(Error::usage(format!("`{destination}` is not a host"))
                .hint("write `--host USER@NAME`, or a `Host` of your SSH configuration"));
        }
        let mut host = Self { destination: destination.to_owned(), config, control, sudo: false };
        let seen = host.capture("uname -sm && id -u").await?;
        let mut lines = seen.lines();
        let machine = lines.next().unwrap_or_default();
        let here = format!("Linux {}", std::env::consts::ARCH);
        if machine != here {
            return Err(Error::failed(format!(
                "`{destination}` is `{machine}`, this bedplate runs on `{here}`"
            ))
            .hint("use a bedplate built for that machine, on that machine"));
        }
        if lines.next() != Some("0") {
            host.sudo = true;
            host.capture("sudo -n true").await.map_err(|error| {
                Error::failed(format!("`{destination}` does not let this user become root without a password"))
                    .because(error)
                    .hint(format!("log in as root, or allow `sudo` without a password there (`ssh {destination} sudo -n true` must work)"))
            })?;
        }
        Ok(host)
    }

    /// Puts `binary` at [`BINARY`] unless the same is there. `dry`: at a passing place instead, which
    /// [`Host::bedplate`] removes.
    pub async fn install(&self, binary: &[u8], dry: bool) -> Result<Installed> {
        let digest = Digest::of(binary);
        let seen = self.capture(&format!("sha256sum {BINARY} 2>/dev/null || true")).await?;
        if seen.split_whitespace().next() == Some(digest.hex().as_str()) {
            return Ok(Installed { path: BINARY.to_owned(), copied: false, passing: false });
        }
        // Beside its target, flushed, checked, renamed; what stays of a broken connection is removed.
        let (place, end) = if dry {
            ("/var/tmp/bedplate.XXXXXX", "echo \"$t\"".to_owned())
        } else {
            ("/usr/local/bin/.bedplate.XXXXXX", format!("mv -f \"$t\" {BINARY}; echo {BINARY}"))
        };
        let script = format!(
            "set -e; umask 077; mkdir -p /usr/local/bin; t=$(mktemp {place}); trap 'rm -f \"$t\"' EXIT; \
             cat >\"$t\"; echo \"{}  $t\" | sha256sum -c --status; chmod 0755 \"$t\"; sync \"$t\"; \
             {end}; trap - EXIT",
            digest.hex()
        );
        let mut child = self.spawn(&self.as_root(&format!("sh -c {}", quote(&script)?)))?;
        feed(&mut child, binary).await?;
        let path = self.finish(child, "copying bedplate there").await?.trim().to_owned();
        Ok(Installed { path, copied: true, passing: dry })
    }

    /// Ends the shared connection.
    pub async fn close(&self) {
        let mut command = self.command_to(&["-O", "exit"]);
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    }

    /// Runs the bedplate that was installed there with `arguments` and on its standard input `request`, then what comes
    /// from `content`: an error there ends its input. Its standard output goes to `out`, its standard error line by line to `talk`. Returns its exit status.
    ///
    /// # Errors
    /// The connection failed or broke; what the host was doing then is in its journal.
    pub async fn bedplate(
        &self,
        installed: &Installed,
        arguments: &str,
        request: &[u8],
        content: Option<mpsc::Receiver<Result<Bytes>>>,
        out: impl Fn(&str) -> Result<()>,
        talk: impl Fn(&str),
    ) -> Result<u8> {
        let path = &installed.path;
        let command = if installed.passing {
            let script = format!("{path} {arguments}; code=$?; rm -f {path}; exit $code");
            format!("sh -c {}", quote(&script)?)
        } else {
            format!("{path} {arguments}")
        };
        let mut child = self.spawn(&self.as_root(&command))?;
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let output = async {
            let Some(mut stdout) = stdout else { return Ok(()) };
            let mut text = String::new();
            stdout.read_to_string(&mut text).await.doing(|| "reading what the host printed failed")?;
            out(&text)
        };
        let talk = async {
            let Some(stderr) = stderr else { return };
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                talk(&line);
            }
        };
        let mut stdin = child.stdin.take();
        let input = async {
            let sent = match &mut stdin {
                Some(stdin) => send(stdin, request, content).await,
                None => Ok(()),
            };
            if sent.is_err() {
                // What it got is cut short: it says so, and ends.
                drop(stdin.take());
            }
            sent
        };
        let (output, (), sent) = tokio::join!(output, talk, input);
        let status = child.wait().await.doing(|| "waiting for `ssh` failed")?;
        // Open until here: its end tells the far end that nobody waits for it any more.
        drop(stdin);
        sent?;
        output?;
        match status.code() {
            Some(255) | None => Err(Error::failed(format!("the connection to `{}` broke", self.destination))
                .hint("run the same command again: it goes on where the host stopped")),
            Some(code) => Ok(u8::try_from(code).unwrap_or(1)),
        }
    }

    fn as_root(&self, command: &str) -> String {
        if self.sudo { format!("sudo -n {command}") } else { command.to_owned() }
    }

    /// `ssh` with options before the destination.
    fn command_to(&self, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        if let Some(config) = &self.config {
            command.arg("-F").arg(config);
        }
        command.args(["-T", "-o", "ServerAliveInterval=15", "-o"]);
        match control_path(&self.control, &self.destination) {
            Some(path) => {
                command.arg(format!("ControlPath={path}"));
                command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=30"]);
            }
            // Then each command connects on its own.
            None => drop(command.args(["ControlPath=none", "-o", "ControlMaster=no"])),
        }
        command.args(options).arg("--").arg(&self.destination).kill_on_drop(true);
        command
    }

    fn spawn(&self, remote: &str) -> Result<Child> {
        let mut command = self.command_to(&[]);
        command.arg(remote);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| {
            Error::failed("starting `ssh` failed")
                .because(error)
                .hint("install it: `apt-get install openssh-client`")
        })
    }

    async fn capture(&self, remote: &str) -> Result<String> {
        let mut child = self.spawn(remote)?;
        drop(child.stdin.take());
        self.finish(child, "asking the host").await
    }

    async fn finish(&self, child: Child, doing: &str) -> Result<String> {
        let output = child.wait_with_output().await.doing(|| "waiting for `ssh` failed")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
        let destination = &self.destination;
        Err(if output.status.code() == Some(255) {
            Error::failed(format!("connecting to `{destination}` failed: {said}"))
                .hint(format!("`ssh {destination} true` must work first"))
        } else {
            Error::failed(format!("{doing} failed on `{destination}`: {said}"))
        })
    }
}

/// `ControlPath` for a connection to `destination`, as a word of ssh_config(5): quoted, `%` doubled. `None` where
/// `control` cannot be written so, or where the socket's path would be longer than unix(7) takes.
fn control_path(control: &Path, destination: &str) -> Option<String> {
    // `sun_path` with its NUL, less what ssh adds while it binds: a dot and 16 characters.
    const LONGEST: usize = 108 - 1 - 17;
    let name = Digest::of(destination).hex();
    let path = format!("{}/{}", control.to_str()?, name.get(..12)?);
    let odd = |c: char| matches!(c, '"' | '\\' | '$') || c.is_control();
    (path.len() <= LONGEST && !path.contains(odd)).then(|| format!("\"{}\"", path.replace('%', "%%")))
}

/// Sends a request and its content. Errors are those of the content: a far end that ended early says why on its standard
/// error.
async fn send(
    stdin: &mut ChildStdin,
    request: &[u8],
    content: Option<mpsc::Receiver<Result<Bytes>>>,
) -> Result<()> {
    if stdin.write_all(request).await.is_err() {
        return Ok(());
    }
    if let Some(mut content) = content {
        while let Some(piece) = content.recv().await {
            if stdin.write_all(&piece?).await.is_err() {
                return Ok(());
            }
        }
    }
    let _ = stdin.flush().await;
    Ok(())
}

async fn feed(child: &mut Child, content: &[u8]) -> Result<()> {
    if let Some(mut stdin) = child.stdin.take() {
        let sent = async {
            stdin.write_all(content).await?;
            stdin.shutdown().await
        };
        match sent.await {
            // The far end's own words, which follow, say more.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            sent => sent.doing(|| "sending to the host failed")?,
        }
    }
    Ok(())
}

fn quote(text: &str) -> Result<String> {
    shlex::try_quote(text).map(std::borrow::Cow::into_owned).doing(|| "quoting a command failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_paths_are_words_of_the_configuration() {
        let path = |control: &str| control_path(Path::new(control), "root@h");
        let plain = path("/tmp/b").unwrap();
        assert!(
            plain.starts_with("\"/tmp/b/") && plain.ends_with('"') && plain.len() == 2 + 7 + 12,
            "{plain}"
        );
        assert!(path("/tmp/a b/50%").unwrap().starts_with("\"/tmp/a b/50%%/"));
        assert_ne!(plain, control_path(Path::new("/tmp/b"), "root@other").unwrap());
        let long = format!("/{}", "x".repeat(76));
        assert!(path(&long).is_some());
        for none in ["/tmp/a\"b", "/tmp/${HOME}", "/tmp/a\\b", &(long + "x")] {
            assert_eq!(path(none), None, "{none}");
        }
    }
}
