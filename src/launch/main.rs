//! The launcher: the first program in every container of a deployment, mounted read-only.
//!
//! `launch -- PROGRAM [ARGUMENT…]` reads each file of `/.bedplate/secrets` as the variable of its name and becomes
//! PROGRAM. No secret is in the container's configuration or in an argument, and no shell is needed.
//!
//! `launch --probe URL [--bearer VARIABLE]` makes one HTTP request within the container's network, with a secret as
//! bearer token where asked, and prints the status and the start of the body. For images without curl.
//!
//! Standard library only, linked statically: it runs in any image, also an empty one. Its exit codes are a shell's
//! (POSIX, "Exit Status for Commands"): 127 not found, 126 found but not runnable.
#![allow(clippy::disallowed_methods)]

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{ffi::OsStringExt, process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

const SECRETS: &str = "/.bedplate/secrets";
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const BODY_LIMIT: u64 = 64 * 1024;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some("--") => {
            let Some(program) = arguments.next() else { return usage() };
            launch(&program, arguments.collect())
        }
        Some("--probe") => {
            let Some(url) = arguments.next().and_then(|url| url.into_string().ok()) else { return usage() };
            let bearer = match arguments.next().as_deref().and_then(OsStr::to_str) {
                None => None,
                Some("--bearer") => match arguments.next().and_then(|name| name.into_string().ok()) {
                    Some(name) => Some(name),
                    None => return usage(),
                },
                Some(_) => return usage(),
            };
            match probe(&url, bearer.as_deref()) {
                Ok(200) => ExitCode::SUCCESS,
                Ok(_) => ExitCode::from(1),
                Err(error) => complain(&format!("{url}: {error}"), 2),
            }
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    complain("usage: launch -- PROGRAM [ARGUMENT…] | launch --probe URL [--bearer VARIABLE]", 2)
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "bedplate: {text}");
    ExitCode::from(code)
}

fn launch(program: &OsStr, arguments: Vec<OsString>) -> ExitCode {
    let secrets = match read_secrets(Path::new(SECRETS)) {
        Ok(secrets) => secrets,
        // Without its secrets the program would fail later and less clearly.
        Err((path, error)) => return complain(&format!("reading secret `{path}`: {error}"), 126),
    };
    // `exec` returns only when it failed. It looks in the PATH of the new environment, as a shell would.
    let error = Command::new(program).args(arguments).envs(secrets).exec();
    let name = program.display();
    match error.kind() {
        io::ErrorKind::NotFound => complain(&format!("`{name}`: not found"), 127),
        _ => complain(&format!("`{name}`: cannot be run: {error}"), 126),
    }
}

/// Each file whose name could be a variable's, with its content as it is. Other names are files for other uses.
fn read_secrets(directory: &Path) -> Result<Vec<(String, OsString)>, (String, io::Error)> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        // A service without secrets has no such mount.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err((directory.display().to_string(), error)),
    };
    let mut secrets = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|error| (directory.display().to_string(), error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_variable(&name) {
            continue;
        }
        let content = fs::read(entry.path()).map_err(|error| (name.clone(), error))?;
        if content.contains(&0) {
            let why =
                io::Error::new(io::ErrorKind::InvalidData, "it holds a zero byte, which no variable can");
            return Err((name, why));
        }
        secrets.push((name, OsString::from_vec(content)));
    }
    Ok(secrets)
}

/// Letters, digits and underscores, no digit first (POSIX, "Environment Variables").
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn probe(url: &str, bearer: Option<&str>) -> io::Result<u16> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("only http:// is known"))?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    // Numeric only: looking up names would load shared libraries into a static program.
    let address: SocketAddr =
        authority.parse().map_err(|_| wrong("the address must be numeric, with a port"))?;
    let mut request =
        format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: bedplate\r\nConnection: close\r\n");
    if let Some(variable) = bearer.filter(|name| is_variable(name)) {
        let token = fs::read_to_string(Path::new(SECRETS).join(variable))?;
        let token = token.trim();
        if token.contains(['\r', '\n']) {
            return Err(wrong("the token has more than one line"));
        }
        request.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    request.push_str("\r\n");
    let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
    stream.set_read_timeout(Some(PROBE_LIMIT))?;
    stream.set_write_timeout(Some(PROBE_LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(BODY_LIMIT).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is no HTTP answer"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let _ = writeln!(io::stdout(), "{status}\n{body}");
    Ok(status)
}
