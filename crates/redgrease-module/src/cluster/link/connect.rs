//! Opening a link: address, connection, TLS, authentication.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use redgrease_engine::cluster::topology::Address;
use redgrease_engine::input::LinkFailure;
use redgrease_engine::input::LinkReply;
use rustix::net::{Shutdown, sockopt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::failure;
use super::tls::TlsConfigs;
use super::wire::{Replies, write_command};
use crate::cluster::target::{Credentials, Target};

/// Longest time from the first packet to the reply to `AUTH`.
const OPEN_MAX: Duration = Duration::from_secs(5);

/// A connection that says nothing for this long is probed by the kernel, so often, and given up after so many probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Space for one read.
pub const READ_BYTES: usize = 4096;

/// A connection, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A socket that is shut down when it is dropped: a process that the server forked to save its data has a copy of it, and the other
/// side would not notice that it was closed here.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Fails if the other side was faster.
        let _ = match self {
            Socket::Tcp(stream) => rustix::net::shutdown(&*stream, Shutdown::Both),
            Socket::Unix(stream) => rustix::net::shutdown(&*stream, Shutdown::Both),
        };
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Connects and authenticates.
///
/// # Errors
/// The class of the failure, at the latest after [`OPEN_MAX`].
pub async fn open(target: &Target, configs: &TlsConfigs) -> Result<Box<dyn Stream>, LinkFailure> {
    let deadline = Instant::now() + OPEN_MAX;
    let socket = within(deadline, "a connection", connect(&target.address)).await?;
    let mut stream: Box<dyn Stream> = match &target.tls {
        None => Box::new(socket),
        Some(files) => {
            let config = configs.get(files).map_err(LinkFailure::Tls)?;
            within(deadline, "the handshake of TLS", handshake(socket, config, &target.address)).await?
        }
    };
    if let Some(credentials) = &target.credentials {
        within(deadline, "AUTH", authenticate(&mut stream, credentials)).await?;
    }
    Ok(stream)
}

async fn within<T>(
    deadline: Instant,
    what: &str,
    step: impl Future<Output = Result<T, LinkFailure>>,
) -> Result<T, LinkFailure> {
    timeout_at(deadline, step).await.unwrap_or_else(|_| {
        let limit = OPEN_MAX.as_millis();
        Err(LinkFailure::Unreachable(format!("no answer to {what} within {limit} ms")))
    })
}

async fn connect(address: &Address) -> Result<Socket, LinkFailure> {
    if let Some(path) = &address.unix_socket {
        let stream = UnixStream::connect(path).await;
        return stream.map(Socket::Unix).map_err(|error| LinkFailure::Unreachable(format!("{path}: {error}")));
    }
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(LinkFailure::Unreachable("its address is not known".to_owned()));
    }
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, address.port)],
        Err(_) => lookup_host((host, address.port))
            .await
            .map_err(|error| LinkFailure::Unreachable(format!("{host}: {error}")))?
            .collect(),
    };
    let mut failure = format!("{host} has no address");
    for address in found {
        match tcp(address).await {
            Ok(stream) => return Ok(Socket::Tcp(stream)),
            Err(error) => failure = format!("{address}: {error}"),
        }
    }
    Err(LinkFailure::Unreachable(failure))
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
    Ok(stream)
}

async fn handshake(
    socket: Socket,
    config: Arc<ClientConfig>,
    address: &Address,
) -> Result<Box<dyn Stream>, LinkFailure> {
    // Only sent, not checked.
    let name = ServerName::try_from(address.host.clone());
    let name = name.unwrap_or_else(|_| ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    match TlsConnector::from(config).connect(name, socket).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(LinkFailure::Tls(failure::tls_error(&error).unwrap_or_else(|| error.to_string()))),
    }
}

async fn authenticate(stream: &mut Box<dyn Stream>, credentials: &Credentials) -> Result<(), LinkFailure> {
    let mut command: Vec<&[u8]> = vec![b"AUTH"];
    command.extend(credentials.user.as_deref());
    command.push(&credentials.password);
    let mut bytes = Vec::new();
    write_command(&command, &mut bytes);
    let lost = |error: io::Error| failure::of_connection(&error);
    stream.write_all(&bytes).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let mut replies = Replies::default();
    loop {
        replies.bytes.reserve(READ_BYTES);
        if stream.read_buf(&mut replies.bytes).await.map_err(lost)? == 0 {
            return Err(LinkFailure::Lost("closed by the other side before its reply to AUTH".to_owned()));
        }
        match replies.next().map_err(failure::of_bytes)? {
            // A server without passwords replies with another error, and lets everybody in.
            Some(LinkReply::Error(error)) => return failure::of_reply(&error).map_or(Ok(()), Err),
            Some(_) => return Ok(()),
            None => {}
        }
    }
}
