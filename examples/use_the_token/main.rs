//! Runs `page.rs`, which equals the Rust snippet of `docs/use-the-token.md` (`tests/snippets.rs` checks it). The snippet is
//! for projects with reqwest's default features, which include a TLS provider; this crate builds reqwest without one and
//! therefore installs it.
#![allow(clippy::print_stdout, reason = "the snippet prints the response")]

mod page {
    include!("page.rs");

    pub(crate) fn run() -> Result<(), Box<dyn Error>> {
        main()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed already")?;
    page::run()
}
