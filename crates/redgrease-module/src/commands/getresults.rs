//! `RG.GETRESULTS id` and `RG.GETRESULTSBLOCKING id`

use redgrease_engine::input::Command;

use super::request::{Request, Rights};

/// Answers with the results of an execution that has ended.
pub fn run(request: &Request<'_>) {
    get(request, false);
}

/// Waits for the end of the execution.
pub fn run_blocking(request: &Request<'_>) {
    get(request, true);
}

fn get(request: &Request<'_>, wait: bool) {
    if request.driver.config.inject_panic && request.driver.fault.arm(request.args[1]) {
        return request.reply().simple("OK");
    }
    let command = Command::GetResults { execution: request.args[1], tagged: request.tagged, wait };
    request.hand_in(Rights::Own, command);
}
