//! The location of a directory, to distinguish it from a copy.

use serde::{Deserialize, Serialize};

/// Numbers that identify the root directory of a cache.
///
/// The inode number of a directory is the same on all hosts that share it, and a rename preserves it. The device number
/// is valid on one host, until it restarts; without a block device (network file systems, overlays,
/// tmpfs) it may change with each mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Inode number.
    pub inode: u64,
    /// Number of the block device; 0: none.
    pub device: u64,
    /// The boot id of the host that assigned the device number.
    pub boot: u64,
}

impl Place {
    /// Whether `found` is a different directory.
    ///
    /// ```
    /// use redgrease_cache_rules::place::Place;
    ///
    /// let original = Place { inode: 2, device: 7, boot: 1 };
    /// assert!(original.is_elsewhere(&Place { inode: 3, ..original.clone() }));
    /// assert!(!original.is_elsewhere(&Place { device: 8, boot: 2, ..original.clone() }));
    /// ```
    pub fn is_elsewhere(&self, found: &Self) -> bool {
        let comparable = self.boot == found.boot && self.device != 0 && found.device != 0;
        self.inode != found.inode || (comparable && self.device != found.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_another_inode_or_another_device_of_the_same_run() {
        let original = Place { inode: 2, device: 7, boot: 1 };
        for (inode, device, boot, elsewhere) in [
            (2, 7, 1, false),
            (3, 7, 1, true),
            (3, 7, 2, true),
            (2, 8, 1, true),
            (2, 8, 2, false), // another host, or after a restart
            (2, 0, 1, false), // a mount without a block device
        ] {
            let found = Place { inode, device, boot };
            assert_eq!(original.is_elsewhere(&found), elsewhere, "{found:?}");
            assert_eq!(found.is_elsewhere(&original), elsewhere, "{found:?}");
        }
    }
}
