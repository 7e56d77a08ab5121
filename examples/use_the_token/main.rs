//! Runs `page.rs`, which is the Rust snippet of `docs/use-the-token.md` letter by letter (`tests/snippets.rs` holds
//! them equal). The page is written for a project with reqwest's default features, which bring a TLS provider along;
//! this crate builds reqwest without one and so has to install it. Nothing else is added to the page.
#![allow(clippy::print_stdout, reason = "printing the answer is what the snippet is for")]

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
