//! Tests that need more than one module.

mod both_apis;
mod damage;
mod outages;
mod scripts;
mod server;
mod simulation;
