//! The other shards of a cluster.

use redgrease_ffi::{CallOptions, Server};

/// Whether this server is one of several shards of a cluster.
pub fn has_other_shards(server: &Server) -> bool {
    let size = || {
        let reply = server.call(&[b"cluster", b"info"], CallOptions::default()).ok()?;
        let text = String::from_utf8_lossy(reply.view().bytes()).into_owned();
        text.lines().find_map(|line| line.strip_prefix("cluster_size:")?.parse::<u64>().ok())
    };
    server.flags().cluster() && size().is_none_or(|size| size > 1)
}
