//! One thing that must hold in the end, and what broke it.

/// Most faults of a check that are kept in words.
pub const FAULTS_SHOWN: usize = 10;

/// Something that must hold.
#[derive(Debug, Clone)]
pub struct Check {
    pub name: &'static str,
    /// What was looked at.
    pub about: String,
    pub broken: u64,
    /// Some of what broke it.
    pub faults: Vec<String>,
}

impl Check {
    pub fn new(name: &'static str, about: String) -> Self {
        Self { name, about, broken: 0, faults: Vec::new() }
    }

    /// With a number of faults that are not named.
    pub fn counted(name: &'static str, about: String, broken: u64) -> Self {
        Self { broken, ..Self::new(name, about) }
    }

    /// Notes a fault; only the first ones are kept in words.
    pub fn fault(&mut self, words: String) {
        self.broken += 1;
        if self.faults.len() < FAULTS_SHOWN {
            self.faults.push(words);
        }
    }

    pub fn holds(&self) -> bool {
        self.broken == 0
    }
}
