//! The archive: text files in one folder, as `.tar.gz`.

use std::io;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use tar::{Builder, Header};

/// A file of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextFile {
    /// Below the folder of the archive.
    pub(super) path: String,
    pub(super) text: String,
}

/// Packs the files into `folder`.
pub(super) fn pack(folder: &str, now: Timestamp, files: &[TextFile]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(vec![], Compression::default()));
    for file in files {
        let mut header = Header::new_gnu();
        header.set_size(file.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.as_second()).unwrap_or_default());
        archive.append_data(&mut header, format!("{folder}/{}", file.path), file.text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}
