//! Writes the seeds of each target into its corpus, as files `seed-<number>`.

use std::fs;
use std::path::Path;

use redgrease_fuzz::seeds;

fn main() -> std::io::Result<()> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, seeds) in
        [("commands", seeds::commands()), ("worker_frames", seeds::worker_frames()), ("stored", seeds::stored())]
    {
        let corpus = corpora.join(target);
        fs::create_dir_all(&corpus)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
