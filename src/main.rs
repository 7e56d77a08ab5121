//! `tokensource-operator`: parse, dispatch, exit code; nothing else.

fn main() {
    let crd = tokensource_operator::api::crd();
    print!("{}", serde_saphyr::to_string(&crd).unwrap());
}
