//! Functions that run once, and results with types.
use redgrease::{Client, Keyed, KeysReader, py, redis::Commands};

#[derive(Debug, serde::Deserialize)]
struct User {
    name: String,
    age: u8,
}

fn main() -> redgrease::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("redis://localhost:6379".into());
    let mut client = Client::connect(&address)?;
    for (name, age, country) in [("Ada", 36, "UK"), ("Grace", 85, "US"), ("Edsger", 72, "NL"), ("Tony", 90, "UK")] {
        let fields = [("name", name.to_owned()), ("age", age.to_string()), ("country", country.to_owned())];
        let () = client.hset_multiple(format!("user:{name}"), &fields)?;
    }

    let users = KeysReader::pattern("user:*").values();
    println!("{} users", users.clone().count().run::<u64>(&mut client)?);

    let old = users.clone().filter(py!("lambda user: int(user['age']) >= limit").with("limit", 80));
    let old: Vec<User> = old.run(&mut client)?;
    println!("{} of them are old, at most {:?} years", old.len(), old.iter().map(|user| user.age).max());
    println!("Grace is one: {}", old.iter().any(|user| user.name == "Grace"));

    let mut countries: Vec<Keyed<String, u64>> =
        users.count_by(py!("lambda user: user['country']")).run(&mut client)?;
    countries.sort_by(|one, other| one.key.cmp(&other.key));
    println!("{:?}", countries.iter().map(|each| (each.key.as_str(), each.value)).collect::<Vec<_>>());
    Ok(())
}
