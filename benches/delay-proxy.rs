//! A TCP proxy that adds a delay each way, so that a loopback registry answers like a distant one.
//!
//! usage: delay-proxy LISTEN_PORT TARGET_PORT MILLISECONDS_PER_ROUND_TRIP
//!
//! Loopback only. A connection's handshake is not delayed, its bytes are: half the round trip each way. Threads and no
//! event loop, so that the proxy itself takes microseconds; standard library alone, built with `rustc -O`.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

fn pump(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (when, data) in due {
            thread::sleep(when.saturating_duration_since(Instant::now()));
            if to.write_all(&data).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + delay, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u16>().expect("a number"));
    let mut next = || arguments.next().expect("usage: delay-proxy LISTEN_PORT TARGET_PORT MILLISECONDS");
    let (listen, target, milliseconds) = (next(), next(), next());
    let delay = Duration::from_micros(u64::from(milliseconds) * 500);
    let listener = TcpListener::bind(("127.0.0.1", listen)).expect("the port is free");
    for near in listener.incoming() {
        let (Ok(near), Ok(far)) = (near, TcpStream::connect(("127.0.0.1", target))) else { continue };
        for stream in [&near, &far] {
            let _ = stream.set_nodelay(true);
        }
        if let (Ok(from_near), Ok(from_far)) = (near.try_clone(), far.try_clone()) {
            pump(from_near, far, delay);
            pump(from_far, near, delay);
        }
    }
}
