//! The thread of the links: connects, sends commands and reads replies. All links share it, one task each.
//!
//! A general client library is not used: it reports replies to commands, not to positions in a stream; it sends commands of
//! its own when it connects; and it does not tell a peer that expects TLS, a wrong password and a peer that is no server apart.
//!
//! # Layout
//! - [`thread`](mod@thread): the thread, and what it is told and tells;
//! - `connect`: addresses, time limit, authentication; `tls`: certificates;
//! - `exchange`: commands and replies of one link; [`wire`]: their form.

mod connect;
mod exchange;
mod failure;
pub mod thread;
mod tls;
mod wire;
