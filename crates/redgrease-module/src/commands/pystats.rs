//! `RG.PYSTATS`

use redgrease_core::render::Reply;

use super::request::Request;
use crate::info::worker_memory;
use crate::reply;

/// Answers with the memory of the workers.
pub fn run(request: &Request<'_>) {
    let memory = worker_memory(request.driver);
    let fields = [("TotalAllocated", memory.total), ("PeakAllocated", memory.peak), ("CurrAllocated", memory.current)];
    let items = fields.iter().flat_map(|(name, bytes)| [Reply::bulk(name), Reply::Int(*bytes as i64)]).collect();
    reply::write(&request.reply(), &Reply::Array(items));
}
