//! One invariant that is checked at the end, and its violations.

/// Maximum number of violations whose texts are kept.
pub const FAULTS_SHOWN: usize = 10;

/// An invariant.
#[derive(Debug, Clone)]
pub struct Check {
    pub name: &'static str,
    /// The checked data.
    pub about: String,
    pub broken: u64,
    /// Texts of some violations.
    pub faults: Vec<String>,
}

impl Check {
    pub fn new(name: &'static str, about: String) -> Self {
        Self { name, about, broken: 0, faults: Vec::new() }
    }

    /// With a number of violations without text.
    pub fn counted(name: &'static str, about: String, broken: u64) -> Self {
        Self { broken, ..Self::new(name, about) }
    }

    /// Records a violation; only the first texts are kept.
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
