//! The `RG.*` commands: a row for each in `table`, and a file for each that does something.

mod abortexecution;
mod administer;
mod dropexecution;
mod dumpexecutions;
mod dumpregistrations;
mod getresults;
mod infocluster;
mod inneratomic;
mod missing;
mod pyexecute;
mod pystats;
mod refreshcluster;
mod request;
mod table;
mod trigger;
mod unregister;
mod withcodec;

pub use table::register;
