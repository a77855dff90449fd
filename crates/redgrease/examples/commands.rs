//! A function that is registered as a command, and called.
use redgrease::{Client, CommandReader, GearsCommands, Pending, py};

fn main() -> redgrease::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("redis://localhost:6379".into());
    let mut client = Client::connect(&address)?;

    let greet = py!("
        def greet(name):
            times = execute('incr', f'greeted:{name}')
            return f'{word} {name}, for time {times}!'
        ");
    CommandReader::trigger("greet").apply(greet.with("word", "Hello")).session("greeting").register(&mut client)?;

    for name in ["Ada", "Grace", "Ada"] {
        let greeting: String = client.rg_trigger("greet", name)?.get()?;
        println!("{greeting}");
    }
    for registration in client.rg_dump_registrations()? {
        println!("{:?} ran {} times", registration.trigger(), registration.succeeded);
        client.rg_unregister(&registration.id, Pending::Run)?;
    }
    Ok(())
}
