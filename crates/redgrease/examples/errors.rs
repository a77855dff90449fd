//! Errors: what happened, the fix, and whether a retry helps.
use std::{thread::sleep, time::Duration};

use redgrease::{Client, Error, GearsCommands, KeysReader, Retry, py};

/// Runs something until it succeeds, or fails in a way that a retry does not change; at most five times.
fn patiently<T>(mut run: impl FnMut() -> redgrease::Result<T>) -> redgrease::Result<T> {
    let mut pause = Duration::from_millis(50);
    for _ in 1..5 {
        match run() {
            Err(error) if error.retry() == Retry::Later => sleep(pause),
            result => return result,
        }
        pause *= 2;
    }
    run()
}

fn main() -> redgrease::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("redis://localhost:6379".into());
    let mut client = patiently(|| Client::connect(&address))?;

    let typing_error = KeysReader::pattern("user:*").map(py!("lambda user: user["));
    if let Err(error) = patiently(|| typing_error.run::<Vec<String>>(&mut client)) {
        println!("{}\n-> {}", error.what(), error.fix().unwrap_or_default());
    }
    if let Err(Error::Server(error)) = client.rg_trigger("no such command", "Ada") {
        println!("{}", error.text());
    }
    if let Err(error) = Client::connect("redis://localhost:1") {
        println!("unreachable, try again: {:?}", error.retry());
    }
    Ok(())
}
