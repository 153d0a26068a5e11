//! What the test images run: an engine or an agent, as small as can be. Compiled by the test, linked statically.
//!
//! `server engine MODEL … --port P [--crash]`; `server agent`; `server once`, which ends at once.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("engine") => engine(&arguments[1..]),
        Some("agent") => agent(),
        Some("once") => println!("prepared"),
        _ => std::process::exit(2),
    }
}

fn engine(arguments: &[String]) {
    let key = env::var("VLLM_API_KEY").ok();
    if arguments.iter().any(|argument| argument == "--crash") {
        println!("loading weights");
        eprintln!("torch.OutOfMemoryError: CUDA out of memory, key {}", key.unwrap_or_default());
        std::process::exit(3);
    }
    let model = arguments[0].clone();
    let port = arguments.iter().position(|a| a == "--port").map(|at| arguments[at + 1].clone()).unwrap();
    println!("listening on {port}");
    serve(&format!("0.0.0.0:{port}"), |path, bearer| match path {
        "/health" => (200, String::new()),
        "/v1/models" if key.is_some() && bearer != key.as_deref() => (401, "{}".to_owned()),
        "/v1/models" => (200, format!(r#"{{"data":[{{"id":"{model}"}}]}}"#)),
        _ => (404, String::new()),
    });
}

fn agent() {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let (key, token) = (variable("MINER_API_KEY"), variable("MINER_TOKEN"));
    let address = format!("{}:{}", variable("MINER_HTTP_HOST"), variable("MINER_HTTP_PORT"));
    println!("agent on {address}");
    serve(&address, |path, bearer| match path {
        "/readyz" if bearer != Some(&key) => (401, r#"{"reason":"wrong key"}"#.to_owned()),
        "/readyz" if token == "unregistered" => (503, r#"{"reason":"not registered"}"#.to_owned()),
        "/readyz" => (200, "{}".to_owned()),
        _ => (404, String::new()),
    });
}

fn serve(address: &str, answer: impl Fn(&str, Option<&str>) -> (u16, String)) {
    for stream in TcpListener::bind(address).unwrap().incoming().flatten() {
        let mut reader = BufReader::new(&stream);
        let mut request = String::new();
        if reader.read_line(&mut request).is_err() {
            continue;
        }
        let mut bearer = None;
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("authorization")
            {
                bearer = value.trim().strip_prefix("Bearer ").map(str::to_owned);
            }
            line.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or("/");
        let (status, body) = answer(path, bearer.as_deref());
        let _ = write!(
            &stream,
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}
