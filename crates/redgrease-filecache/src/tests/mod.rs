//! Tests that need more than one module.

mod faces;
mod scripts;
mod server;
mod simulation;
