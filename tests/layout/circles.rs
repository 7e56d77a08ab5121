//! Circles of imports. They are looked for folder by folder: of each, its own file (`mod.rs`), its other files and its
//! subfolders, each with all that is in it, must have an order. Then no circle is left between files either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::imports::Import;

/// Parts of one module that import each other.
#[derive(Debug)]
pub struct Circle {
    /// The module.
    pub within: Vec<String>,
    /// Its parts: names of modules below it, and `mod.rs` for its own file.
    pub parts: BTreeSet<String>,
    /// The imports of a shortest circle, in order.
    pub steps: Vec<Import>,
}

pub fn circles(imports: &BTreeSet<Import>) -> Vec<Circle> {
    let mut edges: BTreeMap<&[String], BTreeMap<(String, String), &Import>> = BTreeMap::new();
    for import in imports {
        // The folder where the two paths diverge.
        let common = import.from.iter().zip(&import.to).take_while(|(from, to)| from == to).count();
        let part = |path: &[String]| path.get(common).map_or("mod.rs", |it| it).to_owned();
        let edge = (part(&import.from), part(&import.to));
        edges.entry(&import.from[..common]).or_default().entry(edge).or_insert(import);
    }
    edges.into_iter().flat_map(|(within, edges)| circles_of(within, &edges)).collect()
}

fn circles_of(within: &[String], edges: &BTreeMap<(String, String), &Import>) -> Vec<Circle> {
    let mut found: Vec<Circle> = Vec::new();
    let parts: BTreeSet<&String> = edges.keys().map(|(from, _)| from).collect();
    let mut paths: Vec<_> = parts.into_iter().filter_map(|part| shortest_circle(part, edges)).collect();
    paths.sort_by_key(Vec::len);
    for path in paths {
        let start = &path[0].0;
        if found.iter().any(|circle| circle.parts.contains(start)) {
            continue;
        }
        // All that is reached from it and reaches it.
        let reached = reach(start, edges);
        let parts = reached.into_iter().filter(|part| reach(part, edges).contains(start)).collect();
        let steps = path.iter().map(|edge| edges[edge].clone()).collect();
        found.push(Circle { within: within.to_vec(), parts, steps });
    }
    found
}

/// The edges of a shortest path from a part back to itself.
fn shortest_circle(
    start: &String,
    edges: &BTreeMap<(String, String), &Import>,
) -> Option<Vec<(String, String)>> {
    let mut queue = VecDeque::from([vec![]]);
    let mut seen = BTreeSet::new();
    while let Some(path) = queue.pop_front() {
        let last: &String = path.last().map_or(start, |(_, to): &(String, String)| to);
        for edge in edges.keys().filter(|(from, _)| from == last) {
            let path = [&path[..], std::slice::from_ref(edge)].concat();
            if edge.1 == *start {
                return Some(path);
            }
            if seen.insert(&edge.1) {
                queue.push_back(path);
            }
        }
    }
    None
}

fn reach(start: &str, edges: &BTreeMap<(String, String), &Import>) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut next = vec![start.to_owned()];
    while let Some(part) = next.pop() {
        let ahead = edges.keys().filter(|(from, _)| *from == part).map(|(_, to)| to);
        next.extend(ahead.filter(|to| reached.insert((*to).clone())).cloned());
    }
    reached
}
