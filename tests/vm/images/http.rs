//! A small HTTP/1.1 server and client on the standard library alone, for the demonstration images: one thread a
//! connection, one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// A request: method, path without the query, the bearer token if one came, and the body.
pub struct Request {
    pub method: String,
    pub path: String,
    pub bearer: Option<String>,
    pub body: String,
}

/// Status and body. A body that starts with `{` is JSON, anything else is plain text.
pub type Answer = (u16, String);

/// Serves for ever. Ends the process when the address cannot be had.
pub fn serve(address: &str, handle: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> ! {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| {
        eprintln!("cannot listen on {address}: {error}");
        std::process::exit(1);
    });
    let handle = Arc::new(handle);
    for stream in listener.incoming().flatten() {
        let handle = Arc::clone(&handle);
        std::thread::spawn(move || {
            let _ = answer(stream, handle.as_ref());
        });
    }
    unreachable!("incoming() never ends")
}

fn answer(stream: TcpStream, handle: &(impl Fn(&Request) -> Answer + ?Sized)) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(());
    };
    let mut request = Request {
        method: method.to_owned(),
        path: target.split('?').next().unwrap_or("").to_owned(),
        bearer: None,
        body: String::new(),
    };
    let mut length = 0_usize;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" => request.bearer = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let mut body = vec![0; length.min(1 << 20)];
    reader.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();

    let (status, body) = handle(&request);
    println!("INFO: \"{} {} HTTP/1.1\" {status}", request.method, request.path);
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain; version=0.0.4" };
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        _ => "Service Unavailable",
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()
}

/// The status of a GET on `http://HOST:PORT/PATH`; an error says what failed.
#[allow(dead_code)]
pub fn get_status(url: &str) -> Result<u16, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url}: not http"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?
        .next()
        .ok_or_else(|| format!("{host}: no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))
        .map_err(|error| format!("{host}: {error}"))?;
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(|error| error.to_string())?;
    line.split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| "not an HTTP answer".to_owned())
}

/// A JSON string with its quotes.
#[allow(dead_code)]
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The last string value of `key` in a JSON text. Enough for the flat objects that these programs read.
#[allow(dead_code)]
pub fn last_string(json: &str, key: &str) -> Option<String> {
    let mut found = None;
    let needle = format!("\"{key}\"");
    for (at, _) in json.match_indices(&needle) {
        let rest = json[at + needle.len()..].trim_start();
        let Some(rest) = rest.strip_prefix(':').map(str::trim_start) else { continue };
        let Some(rest) = rest.strip_prefix('"') else { continue };
        let mut text = String::new();
        let mut chars = rest.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => {
                    found = Some(text);
                    break;
                }
                '\\' => match chars.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('u') => {
                        let code: String = chars.by_ref().take(4).collect();
                        text.push(
                            u32::from_str_radix(&code, 16)
                                .ok()
                                .and_then(char::from_u32)
                                .unwrap_or('\u{fffd}'),
                        );
                    }
                    Some(c) => text.push(c),
                    None => break,
                },
                c => text.push(c),
            }
        }
    }
    found
}

/// Ends at once on SIGTERM. The first process of a container ignores a signal that it has no handler for, and
/// `docker stop` would then wait ten seconds.
pub fn end_on_sigterm() {
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
        fn _exit(code: i32) -> !;
    }
    extern "C" fn end(_: i32) {
        unsafe { _exit(0) }
    }
    const SIGTERM: i32 = 15;
    unsafe {
        signal(SIGTERM, end);
    }
}
