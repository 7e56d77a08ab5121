//! Nothing: see `benches/micro.rs`.
