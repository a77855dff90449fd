//! tokio: an execution that is started, and its states as they change.
use std::time::Duration;

use futures_util::TryStreamExt;
use redgrease::aio::{self, AsyncGearsCommands};
use redgrease::{PythonReader, py};

#[tokio::main(flavor = "current_thread")]
async fn main() -> redgrease::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("redis://localhost:6379".into());
    let mut connection = aio::connect(&address).await?;

    let squares = PythonReader::generator(py!("lambda: iter(range(4))")).map(py!("lambda n: n * n"));
    let id = squares.start_async(&mut connection).await?;

    let mut watching = connection.clone();
    let states = aio::watch(&mut watching, Some(&id), Duration::from_millis(20));
    let last = states.try_fold(None, async |_, execution| Ok(Some(execution.state))).await?;
    println!("{last:?}");

    let numbers: Vec<u32> = connection.rg_get_results(&id).await?.get()?;
    println!("{numbers:?}");
    connection.rg_drop_execution(&id).await
}
