//! Random identifiers.

use rustix::rand::{GetRandomFlags, getrandom};

/// This many random hexadecimal digits, an even number up to 64.
///
/// # Errors
/// The kernel has no random numbers.
pub fn hex_digits(count: usize) -> Result<String, String> {
    let mut bytes = [0; 32];
    let bytes = &mut bytes[..count / 2];
    getrandom(&mut *bytes, GetRandomFlags::empty()).map_err(|error| format!("getrandom: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_as_many_as_wanted_and_differ() {
        let (one, other) = (hex_digits(40).unwrap(), hex_digits(40).unwrap());
        assert!(one.len() == 40 && one.bytes().all(|byte| byte.is_ascii_hexdigit()) && one != other);
        assert_eq!(hex_digits(8).unwrap().len(), 8);
    }
}
