//! Connections that calls are sent through.

use redis::{ConnectionLike, RedisResult, Value};

use crate::call::{Call, Request};
use crate::error::Result;

/// A blocking connection of redis-rs, to a server or a cluster.
pub trait GearsConnection {
    /// Sends a request to the shards that it is for, and waits for the reply.
    ///
    /// # Errors
    /// That of redis-rs.
    fn send_request(&mut self, request: &Request) -> RedisResult<Value>;

    /// Sends a command and reads its reply.
    ///
    /// # Errors
    /// [`crate::Error`]: the connection, the server, or the reply.
    fn call<T>(&mut self, call: Call<T>) -> Result<T>
    where
        Self: Sized,
    {
        let reply = self.send_request(call.request());
        call.finish(reply)
    }
}

impl<C: GearsConnection + ?Sized> GearsConnection for &mut C {
    fn send_request(&mut self, request: &Request) -> RedisResult<Value> {
        (**self).send_request(request)
    }
}

impl GearsConnection for redis::Connection {
    fn send_request(&mut self, request: &Request) -> RedisResult<Value> {
        self.req_command(&request.command)
    }
}

impl GearsConnection for redis::Client {
    fn send_request(&mut self, request: &Request) -> RedisResult<Value> {
        self.req_command(&request.command)
    }
}

/// An asynchronous connection of redis-rs, to a server or a cluster.
#[cfg(feature = "aio")]
pub trait AsyncGearsConnection: Send {
    /// Sends a request to the shards that it is for; the reply.
    ///
    /// # Errors
    /// That of redis-rs.
    fn send_request(&mut self, request: &Request) -> impl Future<Output = RedisResult<Value>> + Send;

    /// Sends a command and reads its reply.
    ///
    /// # Errors
    /// [`crate::Error`]: the connection, the server, or the reply.
    fn call<T>(&mut self, call: Call<T>) -> impl Future<Output = Result<T>> + Send {
        async move {
            let reply = self.send_request(call.request()).await;
            call.finish(reply)
        }
    }
}

#[cfg(feature = "aio")]
impl<C: AsyncGearsConnection> AsyncGearsConnection for &mut C {
    fn send_request(&mut self, request: &Request) -> impl Future<Output = RedisResult<Value>> + Send {
        (**self).send_request(request)
    }
}

#[cfg(feature = "aio")]
impl AsyncGearsConnection for redis::aio::MultiplexedConnection {
    async fn send_request(&mut self, request: &Request) -> RedisResult<Value> {
        self.send_packed_command(&request.command).await
    }
}
