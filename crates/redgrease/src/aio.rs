//! Connections of tokio.
//!
//! ```no_run
//! use redgrease::aio::{self, AsyncGearsCommands};
//! use redgrease::{KeysReader, py};
//!
//! # async fn example() -> redgrease::Result<()> {
//! let mut connection = aio::connect("redis://localhost:6379").await?;
//! let names: Vec<String> = KeysReader::pattern("user:*").keys().run_async(&mut connection).await?;
//! let reply: String = connection.rg_trigger("greet", "Ada").await?.get()?;
//! # Ok(())
//! # }
//! ```
//!
//! Replies come in the order of requests: while a function runs on a connection, the clones of that connection wait. Functions
//! that take long need a connection of their own.

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use crate::client::{self, CONNECT_TIMEOUT};
use crate::error::{Error, Result};

pub use crate::commands::AsyncGearsCommands;
pub use crate::connection::AsyncGearsConnection;
pub use crate::states::watch_async as watch;

/// Connects to an address such as `redis://user:password@host:6379/0`, with RESP3; `rediss://` is TLS.
///
/// Replies are waited for as long as their commands take. Connections that redis-rs makes wait half a second, unless they are
/// told otherwise: functions can take longer.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::Tls`], [`Error::Authentication`]: the server is not there, or refuses.
/// [`Error::Argument`]: this is no address.
pub async fn connect(address: &str) -> Result<MultiplexedConnection> {
    let shown = client::shown(address);
    let client = client::information(address)
        .and_then(redis::Client::open)
        .map_err(|error| Error::of_connecting(error, &shown))?;
    let settings =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&settings).await;
    connection.map_err(|error| Error::of_connecting(error, &shown))
}
