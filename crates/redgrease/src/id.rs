//! Ids of executions and registrations.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            shard: String,
            sequence: u64,
        }

        impl $name {
            /// The id of the shard that it began on; forty zeros if the server is not part of a cluster.
            #[must_use]
            pub fn shard(&self) -> &str {
                &self.shard
            }

            /// Its number there.
            #[must_use]
            pub fn sequence(&self) -> u64 {
                self.sequence
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}-{}", self.shard, self.sequence)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads a text such as `0000000000000000000000000000000000000000-7`.
            ///
            /// # Errors
            /// [`Error::Argument`]: it is not an id.
            fn from_str(text: &str) -> Result<$name, Error> {
                split(text).map(|(shard, sequence)| $name { shard: shard.to_owned(), sequence }).ok_or_else(|| {
                    Error::argument(
                        format!("'{text}' is not the id of {}", $what),
                        "Ids are a shard, a dash and a number, such as 0000000000000000000000000000000000000000-7.",
                    )
                })
            }
        }
    };
}

id!(
    /// The id of an execution.
    ExecutionId,
    "an execution"
);
id!(
    /// The id of a registration.
    RegistrationId,
    "a registration"
);

fn split(text: &str) -> Option<(&str, u64)> {
    let (shard, sequence) = text.rsplit_once('-')?;
    let digits = !sequence.is_empty() && sequence.bytes().all(|byte| byte.is_ascii_digit());
    if shard.is_empty() || !digits {
        return None;
    }
    Some((shard, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_shard_and_a_number() {
        let id: ExecutionId = "ab-c-17".parse().unwrap();
        assert_eq!((id.shard(), id.sequence(), id.to_string().as_str()), ("ab-c", 17, "ab-c-17"));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "-", "7", "ab-", "-7", "ab-+7", "ab-99999999999999999999"] {
            let error = text.parse::<RegistrationId>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{text}' is not the id of a registration\n")), "{error}");
        }
    }
}
