//! When should I visit Seattle? Loads days of weather, and asks them where they are: `weather seattle-weather.csv`.
use redgrease::{Client, KeysReader, py, redis::Commands};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let text = std::fs::read_to_string(words.next().ok_or("name a file with a line for each day")?)?;
    let mut client = Client::connect(&words.next().unwrap_or("redis://localhost:6379".into()))?;
    let mut rows = text.lines().map(|line| line.split(','));
    let names: Vec<&str> = rows.next().ok_or("the file is empty")?.collect();
    for row in rows {
        let day: Vec<(&str, &str)> = names.iter().copied().zip(row).collect();
        let () = client.hset_multiple(format!("weather:{}", day[0].1), &day)?;
    }
    let pleasant = py!("lambda day: float(day['precipitation']) == 0 and float(day['temp_max']) >= warm");
    let months: Vec<(u32, String)> = KeysReader::pattern("weather:*")
        .values()
        .filter(pleasant.with("warm", 20))
        .count_by(py!("lambda day: day['date'][5:7]"))
        .map(py!("lambda month: (month['value'], month['key'])"))
        .sort_descending()
        .limit(3)
        .run(&mut client)?;
    months.iter().for_each(|(days, month)| println!("month {month}: {days} dry and warm days"));
    Ok(())
}
