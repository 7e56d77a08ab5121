//! Prints the rules for Secrets as `make generate` writes them into the chart.
#![expect(clippy::print_stdout, reason = "the output of the program")]

fn main() {
    println!("{:#}", tokensource_api::permitted::secret_rules());
}
