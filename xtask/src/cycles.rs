//! No file of a crate imports, over other files or not, from one that imports from it.
//!
//! Written here because the known tool (`cargo modules dependencies --acyclic`) brings rust-analyzer, which takes longer
//! to build than this workspace.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use anyhow::Result;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::imports::{self, Import, Imports};

/// Checks the crates (roots) of one package; returns one text for each knot of files.
pub fn check(package: &str, directory: &Path, roots: &[PathBuf]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for root in roots {
        broken.extend(report(package, directory, &imports::read(root)?));
    }
    Ok(broken)
}

/// Describes each set of files that import from each other: a shortest cycle in it, with one import for each edge.
fn report(package: &str, directory: &Path, crate_: &Imports) -> Vec<String> {
    let graph: DiGraph<(), &Import> = {
        let mut graph = DiGraph::new();
        crate_.files.iter().for_each(|_| {
            graph.add_node(());
        });
        for import in &crate_.imports {
            graph.add_edge(NodeIndex::new(import.from), NodeIndex::new(import.to), import);
        }
        graph
    };
    let name = |file: usize| crate_.files[file].strip_prefix(directory).unwrap_or(&crate_.files[file]).display();
    let mut knots: Vec<_> = tarjan_scc(&graph).into_iter().filter(|knot| knot.len() > 1).collect();
    knots.iter_mut().for_each(|knot| knot.sort_unstable());
    knots.sort();
    let describe = |knot: &Vec<NodeIndex>| {
        let cycle = shortest_cycle(&graph, knot);
        let size = match knot.len() - cycle.len() {
            0 => String::new(),
            more => format!(" ({more} more files are tied to it)"),
        };
        let edges = cycle.iter().map(|import| {
            let (from, to) = (name(import.from), name(import.to));
            format!("\n    {from}:{} imports {} from {to}", import.line, import.path)
        });
        format!("{package}: {} files import from each other{size}:{}", cycle.len(), edges.collect::<String>())
    };
    knots.iter().map(describe).collect()
}

/// A shortest cycle among files that can all reach each other.
fn shortest_cycle<'a>(graph: &DiGraph<(), &'a Import>, knot: &[NodeIndex]) -> Vec<&'a Import> {
    let cycles = knot.iter().filter_map(|start| cycle_through(graph, *start));
    cycles.min_by_key(Vec::len).unwrap_or_default()
}

/// Breadth first from a file until an import leads back to it.
fn cycle_through<'a>(graph: &DiGraph<(), &'a Import>, start: NodeIndex) -> Option<Vec<&'a Import>> {
    let mut reached_by: Vec<Option<&Import>> = vec![None; graph.node_count()];
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        let mut imports: Vec<&Import> = graph.edges(file).map(|edge| *edge.weight()).collect();
        imports.sort_unstable_by_key(|import| import.to);
        for import in imports {
            if import.to == start.index() {
                let mut cycle = vec![import];
                while let Some(before) = reached_by[cycle[cycle.len() - 1].from] {
                    cycle.push(before);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if reached_by[import.to].is_none() {
                reached_by[import.to] = Some(import);
                queue.push_back(NodeIndex::new(import.to));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(edges: &[(usize, usize)]) -> Vec<String> {
        let files = ["a", "b", "c", "d"].map(|name| PathBuf::from(format!("/x/src/{name}.rs")));
        let import = |&(from, to): &(usize, usize)| Import { from, to, line: 10 * from + to, path: format!("to_{to}") };
        report("x", Path::new("/x"), &Imports { files: files.into(), imports: edges.iter().map(import).collect() })
    }

    #[test]
    fn files_in_layers_pass() {
        assert_eq!(found(&[(0, 1), (0, 2), (1, 2), (2, 3), (0, 3)]), [""; 0]);
    }

    #[test]
    fn a_cycle_is_told_with_one_import_for_each_edge() {
        assert_eq!(
            found(&[(0, 1), (1, 2), (2, 0), (2, 3)]),
            ["x: 3 files import from each other:\n    src/a.rs:1 imports to_1 from src/b.rs\n    src/b.rs:12 imports \
              to_2 from src/c.rs\n    src/c.rs:20 imports to_0 from src/a.rs"]
        );
    }

    #[test]
    fn of_many_cycles_in_one_knot_a_shortest_is_told_and_separate_knots_each() {
        let one = found(&[(0, 1), (1, 2), (2, 0), (2, 1)]);
        assert_eq!(one.len(), 1);
        assert!(one[0].starts_with("x: 2 files import from each other (1 more files are tied to it):"), "{one:?}");
        assert!(one[0].contains("b.rs:12") && one[0].contains("c.rs:21"), "{one:?}");
        assert_eq!(found(&[(0, 1), (1, 0), (2, 3), (3, 2), (1, 2)]).len(), 2);
    }
}
