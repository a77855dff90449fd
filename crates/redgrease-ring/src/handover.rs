//! Passes the memory of a [`Link`] to the other process: the first byte on a Unix socket between them, with the file
//! attached.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::Link;

/// A file is attached: everything else goes through its rings.
const WITH_MEMORY: u8 = b'M';
/// No file: everything goes through the socket.
const WITHOUT_MEMORY: u8 = b'S';

/// Offers the memory in `file`, or says that there is none.
///
/// # Errors
/// The socket does not take the byte.
pub fn offer(socket: impl AsFd, file: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !attached.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(Errno::NOBUFS);
    }
    let byte = [if files.is_empty() { WITHOUT_MEMORY } else { WITH_MEMORY }];
    sendmsg(socket, &[IoSlice::new(&byte)], &mut attached, SendFlags::NOSIGNAL).map(|_| ())
}

/// Takes what [`offer`] sent: the link, or `None` when the socket carries everything. Blocks until it has come.
///
/// # Errors
/// The socket was closed ([`Errno::PIPE`]), something else was sent ([`Errno::PROTO`]), or the memory cannot be mapped.
pub fn accept(socket: impl AsFd) -> Result<Option<Link>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut attached, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Err(Errno::PIPE);
    }
    let mut files: Vec<OwnedFd> = Vec::new();
    for message in attached.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    match (byte[0], files.first()) {
        (WITH_MEMORY, Some(file)) => Link::open(file).map(Some),
        (WITHOUT_MEMORY, None) => Ok(None),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn the_memory_arrives_and_what_follows_stays_in_the_socket() {
        let (ours, theirs) = pair();
        let (mut link, file) = Link::create().unwrap();
        offer(&ours, Some(file.as_fd())).unwrap();
        rustix::io::write(&ours, b"rest").unwrap();
        let mut other = accept(&theirs).unwrap().expect("memory was offered");
        assert_eq!(link.sender.write(b"hello"), Ok(5));
        let mut read = Vec::new();
        assert_eq!(other.receiver.read(&mut read, 100), Ok(5));
        assert_eq!(read, b"hello");
        assert_eq!(other.sender.write(b"yes"), Ok(3));
        assert_eq!(link.receiver.read(&mut read, 2), Ok(2));
        let mut rest = [0; 16];
        assert_eq!(rustix::io::read(&theirs, &mut rest), Ok(4));
    }

    #[test]
    fn no_memory_is_no_error_and_nonsense_is_one() {
        let (ours, theirs) = pair();
        offer(&ours, None).unwrap();
        assert!(accept(&theirs).unwrap().is_none());
        rustix::io::write(&ours, b"M").unwrap();
        assert_eq!(accept(&theirs).unwrap_err(), Errno::PROTO);
        offer(&ours, Some(ours.as_fd())).unwrap();
        assert!(accept(&theirs).is_err(), "a socket is no memory file");
        drop(ours);
        assert_eq!(accept(&theirs).unwrap_err(), Errno::PIPE);
    }
}
