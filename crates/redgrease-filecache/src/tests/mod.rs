//! Tests that need more than one module.

mod damage;
mod faces;
mod scripts;
mod server;
mod simulation;
mod troubles;
