//! Who listens where on this host, name resolution with a time limit, free ports.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket},
    time::Duration,
};

use procfs::{
    ProcError, ProcResult,
    net::TcpState,
    process::{FDTarget, all_processes},
};

use crate::error::{Error, Result};

/// The transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A process that has a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub id: i32,
    /// Command name, at most 15 characters (proc(5), `comm`).
    pub name: String,
}

/// A socket that waits for others: a listening TCP socket, or an unconnected UDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Local address and port; all addresses are `0.0.0.0` or `[::]`.
    pub address: SocketAddr,
    /// The user who made it.
    pub uid: u32,
    /// Its process; `None` where this user may not look, or it belongs to the kernel.
    pub process: Option<Process>,
}

/// All listeners of this host (of this process's network namespace), by address.
///
/// # Errors
/// `/proc/net` cannot be read.
pub fn listeners() -> Result<Vec<Listener>> {
    listeners_naming(|_| true)
}

/// As [`listeners`], but with processes looked up only for the addresses that `named` says yes to: that
/// look goes through every process's descriptors.
///
/// # Errors
/// As [`listeners`].
pub fn listeners_naming(named: impl Fn(SocketAddr) -> bool) -> Result<Vec<Listener>> {
    let mut found = Vec::new();
    for entry in table("tcp", procfs::net::tcp())?.into_iter().chain(table("tcp6", procfs::net::tcp6())?) {
        if entry.state == TcpState::Listen {
            found.push((Protocol::Tcp, entry.local_address, entry.uid, entry.inode));
        }
    }
    for entry in table("udp", procfs::net::udp())?.into_iter().chain(table("udp6", procfs::net::udp6())?) {
        if entry.remote_address.port() == 0 {
            found.push((Protocol::Udp, entry.local_address, entry.uid, entry.inode));
        }
    }
    let mut owners =
        owners(found.iter().filter(|(_, address, _, _)| named(*address)).map(|(_, _, _, inode)| *inode));
    let mut listeners: Vec<Listener> = found
        .into_iter()
        .map(|(protocol, address, uid, inode)| Listener {
            protocol,
            address,
            uid,
            process: owners.remove(&inode),
        })
        .collect();
    listeners.sort_by_key(|listener| (listener.protocol, listener.address));
    Ok(listeners)
}

/// A socket table; without IPv6 in the kernel its tables are not there, which is no error.
fn table<T>(name: &str, read: ProcResult<Vec<T>>) -> Result<Vec<T>> {
    match read {
        Ok(entries) => Ok(entries),
        Err(ProcError::NotFound(_)) if name.ends_with('6') => Ok(Vec::new()),
        Err(error) => Err(Error::failed(format!("reading `/proc/net/{name}`")).because(error)),
    }
}

/// The processes that have these sockets, by inode. Processes that may not be looked at, or end
/// meanwhile, are passed over.
fn owners(inodes: impl Iterator<Item = u64>) -> HashMap<u64, Process> {
    let wanted: std::collections::HashSet<u64> = inodes.collect();
    let mut owners = HashMap::new();
    if wanted.is_empty() {
        return owners;
    }
    for process in all_processes().into_iter().flatten().flatten() {
        if owners.len() == wanted.len() {
            break;
        }
        let Ok(descriptors) = process.fd() else { continue };
        for descriptor in descriptors.flatten() {
            let FDTarget::Socket(inode) = descriptor.target else { continue };
            if wanted.contains(&inode) && !owners.contains_key(&inode) {
                let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
                owners.insert(inode, Process { id: process.pid(), name });
            }
        }
    }
    owners
}

/// The addresses of `host`, as the system's resolver has them, in its order.
///
/// # Errors
/// The name has none, or no answer came within `limit`.
pub async fn resolve(host: &str, limit: Duration) -> Result<Vec<IpAddr>> {
    resolve_by(host, limit, |name| (name, 0).to_socket_addrs().map(Iterator::collect)).await
}

async fn resolve_by(
    host: &str,
    limit: Duration,
    look_up: impl FnOnce(&str) -> std::io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Vec<IpAddr>> {
    let (tell, answer) = tokio::sync::oneshot::channel();
    let name = host.to_owned();
    // A thread of its own: one of the runtime's would hold up the end of the program until the
    // resolver gives up.
    std::thread::Builder::new()
        .name("resolve".to_owned())
        .spawn(move || {
            // Nobody waits any more: the time was up.
            let _ = tell.send(look_up(&name));
        })
        .map_err(|error| Error::failed("starting a thread").because(error))?;
    let shown = host.escape_debug();
    let check = || format!("check `getent ahosts {shown}` and `/etc/resolv.conf`");
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(Ok(found))) => {
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in found {
                if !addresses.contains(&address.ip()) {
                    addresses.push(address.ip());
                }
            }
            Ok(addresses)
        }
        Ok(Ok(Err(error))) => {
            Err(Error::failed(format!("`{shown}` does not resolve")).because(error).hint(check()))
        }
        Ok(Err(_)) => {
            Err(Error::failed(format!("resolving `{shown}`: the resolver ended without an answer")))
        }
        Err(_) => {
            Err(Error::failed(format!("resolving `{shown}`: no answer within {} s", limit.as_secs_f32()))
                .hint(check()))
        }
    }
}

/// Whether a port can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// It can be bound.
    Free,
    /// Another socket has it.
    Taken,
    /// The address is not one of this host's.
    NotOurs,
    /// This user may not bind it (ports below 1024).
    Denied,
}

/// Whether `address` can be bound now; it is bound for a moment. Port 0 is always free.
///
/// # Errors
/// The kernel refuses for a reason that is none of [`Port`]'s.
pub fn bindable(protocol: Protocol, address: SocketAddr) -> Result<Port> {
    let bound = match protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    };
    match bound {
        Ok(()) => Ok(Port::Free),
        Err(error) => match error.kind() {
            ErrorKind::AddrInUse => Ok(Port::Taken),
            ErrorKind::AddrNotAvailable => Ok(Port::NotOurs),
            ErrorKind::PermissionDenied => Ok(Port::Denied),
            _ => Err(Error::failed(format!("binding `{address}`")).because(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_with_its_process() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = listeners().unwrap();
        let id = i32::try_from(std::process::id()).unwrap();
        for (protocol, address) in
            [(Protocol::Tcp, tcp.local_addr().unwrap()), (Protocol::Udp, udp.local_addr().unwrap())]
        {
            let listener = found.iter().find(|l| l.protocol == protocol && l.address == address).unwrap();
            assert_eq!(listener.process.as_ref().unwrap().id, id);
            assert_eq!(bindable(protocol, address).unwrap(), Port::Taken);
        }
        let address = tcp.local_addr().unwrap();
        drop(tcp);
        assert_eq!(bindable(Protocol::Tcp, address).unwrap(), Port::Free);
        assert!(!listeners().unwrap().iter().any(|l| l.protocol == Protocol::Tcp && l.address == address));
        // TEST-NET-1 (RFC 5737) is on no host.
        assert_eq!(bindable(Protocol::Tcp, "192.0.2.1:80".parse().unwrap()).unwrap(), Port::NotOurs);
    }

    #[tokio::test]
    async fn names_resolve_or_say_why_not() {
        let limit = Duration::from_secs(20);
        assert!(resolve("localhost", limit).await.unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(resolve("127.0.0.1", limit).await.unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        // `.invalid` never exists (RFC 2606).
        let error = resolve("registry.invalid", limit).await.unwrap_err();
        assert!(error.message().contains("`registry.invalid`"), "{error}");
        let slow = |_: &str| {
            std::thread::sleep(Duration::from_secs(5));
            Ok(Vec::new())
        };
        let error = resolve_by("slow.example", Duration::from_millis(500), slow).await.unwrap_err();
        assert!(error.message().contains("no answer within 0.5 s"), "{error}");
    }
}
