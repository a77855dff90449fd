//! The `RG.*` commands: a row for each in `table`, and a file for each that does something.

mod abortexecution;
mod administer;
mod clearregistrationsstats;
mod cluster;
mod config;
mod dropexecution;
mod dumpexecutions;
pub mod dumpplugins;
mod dumpregistrations;
mod getexecution;
mod getresults;
mod inneratomic;
mod innerhook;
mod innerregister;
mod pauseregistrations;
mod pydumpsessions;
mod pyexecute;
mod pyprofile;
mod pystats;
mod removed;
mod request;
mod requirements;
mod shards;
mod table;
mod trigger;
mod unregister;
mod withcodec;

pub use table::register;
