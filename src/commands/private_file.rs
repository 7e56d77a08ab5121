//! Files that only their owner may read.

use std::fs::OpenOptions;

/// Options for a file that is created with mode 0600. Windows has no modes: there the file inherits the rights of its folder, and
/// the folders of users are private.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
