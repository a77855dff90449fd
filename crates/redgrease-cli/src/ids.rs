//! Ids as people type them: whole, or abbreviated as the lists show them.

use redgrease::{ExecutionId, RegistrationId};

use crate::failure::{Class, Failure};

/// Digits of a shard's name that lists show.
const SHARD_SHOWN: usize = 8;

/// An id that consists of a shard and a number.
pub trait Id: std::fmt::Display {
    const KIND: &'static str;
    fn shard(&self) -> &str;
    fn sequence(&self) -> u64;
}

impl Id for ExecutionId {
    const KIND: &'static str = "execution";

    fn shard(&self) -> &str {
        ExecutionId::shard(self)
    }

    fn sequence(&self) -> u64 {
        ExecutionId::sequence(self)
    }
}

impl Id for RegistrationId {
    const KIND: &'static str = "registration";

    fn shard(&self) -> &str {
        RegistrationId::shard(self)
    }

    fn sequence(&self) -> u64 {
        RegistrationId::sequence(self)
    }
}

/// The short form: the number, behind the begin of the shard's name if the server is part of a cluster.
pub fn short(id: &impl Id) -> String {
    let shard = id.shard();
    if shard.bytes().all(|byte| byte == b'0') {
        return id.sequence().to_string();
    }
    format!("{}-{}", shard.get(..SHARD_SHOWN).unwrap_or(shard), id.sequence())
}

/// Whether a typed text names this id.
pub fn is_named(id: &impl Id, typed: &str) -> bool {
    let (shard, sequence) = typed.rsplit_once('-').unwrap_or(("", typed));
    sequence == id.sequence().to_string() && id.shard().starts_with(shard)
}

/// The id that a text names, of those that exist.
pub fn find<'a, I: Id>(typed: &str, known: impl IntoIterator<Item = &'a I>) -> Result<&'a I, Failure> {
    let mut found = known.into_iter().filter(|id| is_named(*id, typed));
    let Some(first) = found.next() else {
        return Err(Failure::new(
            Class::Failed,
            format!("there is no {} '{typed}'", I::KIND),
            format!("list them with `redgrease ls {}s`", I::KIND),
        ));
    };
    if found.next().is_some() {
        let fix = "name one by its whole id: `redgrease ls --json` shows it";
        return Err(Failure::new(Class::Failed, format!("{typed} is the number of several {}s", I::KIND), fix));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ExecutionId {
        text.parse().unwrap()
    }

    #[test]
    fn an_id_is_named_by_its_number_the_begin_of_its_shard_or_whole() {
        let known = [id("0000-7"), id("0000-17"), id("abcdef0123-3"), id("abcd999999-8"), id("ffff-8")];
        for (typed, index) in [("7", 0), ("0000-7", 0), ("17", 1), ("abcdef01-3", 2), ("3", 2), ("ffff-8", 4)] {
            assert_eq!(find(typed, &known), Ok(&known[index]), "{typed}");
        }
        assert_eq!(find("9", &known).unwrap_err().what, "there is no execution '9'");
        assert_eq!(find("8", &known).unwrap_err().what, "8 is the number of several executions");
        assert!(find("x-7", &known).is_err() && find("", &known).is_err());
    }

    #[test]
    fn the_short_form_names_the_id() {
        for text in ["0000000000000000000000000000000000000000-7", "b77b811144abcc3639ae837b24f11738be7be37f-12"] {
            let id = id(text);
            assert_eq!(find(&short(&id), [&id]), Ok(&id));
        }
        assert_eq!(short(&id("b77b811144abcc36-12")), "b77b8111-12");
    }
}
