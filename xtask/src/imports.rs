//! Which file of a crate imports from which other file of it.
//!
//! Files are read with `syn` and followed from the crate's root along `mod` declarations. What counts:
//!
//! - every `use` and every path of two or more segments that leads to another file, in code and in the arguments of
//!   macros; code under `#[cfg(test)]`, doc comments and attributes do not;
//! - a name counts for the file that defines it, also when it is imported through re-exports of other files;
//! - a module counts for its own file; a glob counts for the file of the module, if it defines anything, and for the files
//!   that define what the module re-exports;
//! - a re-export (`pub use`) of something below the same module is a table of contents: it counts only when the module's
//!   own code uses the name.
//!
//! Calls of methods name no path and are not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use syn::{Item, Visibility};

use crate::references::{Kind, Leaf, Reference, leaves, references};
use crate::source::{self, attributes, is_for_tests};

/// One import, the first of its kind between two files.
#[derive(Debug)]
pub struct Import {
    /// The importing file, as a position in [`Imports::files`].
    pub from: usize,
    /// The file that defines what is imported.
    pub to: usize,
    pub line: usize,
    pub path: String,
}

/// The files of one crate and the imports between them.
#[derive(Debug)]
pub struct Imports {
    pub files: Vec<PathBuf>,
    pub imports: Vec<Import>,
}

/// Reads a crate from its root file on.
pub fn read(root: &Path) -> Result<Imports> {
    let mut tree = Tree::default();
    tree.read_file("crate", root, None, root.parent().unwrap_or(Path::new("")))?;
    let mut imports: BTreeMap<(usize, usize), Import> = BTreeMap::new();
    for (position, module) in tree.modules.iter().enumerate() {
        for reference in references(&module.code) {
            for to in tree.files_of(position, &reference) {
                if to != module.file {
                    imports.entry((module.file, to)).or_insert(Import {
                        from: module.file,
                        to,
                        line: reference.line,
                        path: reference.path.join("::"),
                    });
                }
            }
        }
    }
    Ok(Imports { files: tree.files, imports: imports.into_values().collect() })
}

#[derive(Default)]
struct Module {
    /// `crate` for the root.
    name: String,
    file: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names that are defined here.
    defined: BTreeSet<String>,
    /// Names that are imported here, with their paths; whether they are exported again.
    imported: BTreeMap<String, (Vec<String>, bool)>,
    /// Modules of which everything is imported.
    globs: Vec<Vec<String>>,
    /// Everything but modules and what is for tests.
    code: Vec<Item>,
}

/// Where a path leads: to a module, or to something that a module defines.
#[derive(Clone, Copy)]
enum Place {
    Module(usize),
    Item(usize),
}

#[derive(Default)]
struct Tree {
    files: Vec<PathBuf>,
    modules: Vec<Module>,
}

const ROOT: usize = 0;

/// Longer chains of re-exports are not followed.
const DEEPEST: usize = 16;

impl Tree {
    fn read_file(&mut self, name: &str, path: &Path, parent: Option<usize>, children_in: &Path) -> Result<usize> {
        let parsed = source::parse(path)?;
        self.files.push(path.to_owned());
        self.read_items(name, parsed.items, self.files.len() - 1, parent, children_in)
    }

    fn read_items(
        &mut self,
        name: &str,
        items: Vec<Item>,
        file: usize,
        parent: Option<usize>,
        children_in: &Path,
    ) -> Result<usize> {
        let position = self.modules.len();
        self.modules.push(Module { name: name.to_owned(), file, parent, ..Module::default() });
        for item in items.into_iter().filter(|item| !is_for_tests(item)) {
            let Item::Mod(module) = item else {
                self.declare(position, &item);
                self.modules[position].code.push(item);
                continue;
            };
            let name = module.ident.to_string();
            if module.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
                bail!("{}: #[path] on module {name} is not supported here", self.files[file].display());
            }
            let below = children_in.join(&name);
            let child = match module.content {
                Some((_, items)) => self.read_items(&name, items, file, Some(position), &below)?,
                None => {
                    let candidates = [children_in.join(format!("{name}.rs")), below.join("mod.rs")];
                    let found = candidates.iter().find(|path| path.is_file());
                    let found = found.with_context(|| {
                        format!("{}: no file for module {name}: looked for {candidates:?}", self.files[file].display())
                    })?;
                    self.read_file(&name, found, Some(position), &below)?
                }
            };
            self.modules[position].children.insert(name, child);
        }
        Ok(position)
    }

    fn declare(&mut self, position: usize, item: &Item) {
        if let Item::Use(item) = item {
            let exports = !matches!(item.vis, Visibility::Inherited);
            let module = &mut self.modules[position];
            for Leaf { name, path, .. } in leaves(&item.tree) {
                match name {
                    Some(name) => {
                        module.imported.insert(name, (path, exports));
                    }
                    None => module.globs.push(path),
                }
            }
        } else if let Some(name) = name_of(item) {
            // `#[macro_export]` puts a macro at the root, whatever file defines it.
            if attributes(item).iter().any(|attribute| attribute.path().is_ident("macro_export")) && position != ROOT {
                let path = self.path_of(position).into_iter().chain([name.clone()]).collect();
                self.modules[ROOT].imported.insert(name.clone(), (path, true));
            }
            self.modules[position].defined.insert(name);
        }
    }

    /// The path of a module, from `crate` on.
    fn path_of(&self, position: usize) -> Vec<String> {
        let upwards = std::iter::successors(Some(position), |&position| self.modules[position].parent);
        let mut path: Vec<_> = upwards.map(|position| self.modules[position].name.clone()).collect();
        path.reverse();
        path
    }

    /// The files that a reference in a module counts for.
    fn files_of(&self, module: usize, reference: &Reference) -> Vec<usize> {
        if let (Kind::Name, [name, ..]) = (reference.kind, &reference.path[..]) {
            // Plain imports have been counted, and the rest are names of this module, of the language or of a function.
            let exported = self.modules[module].imported.get(name).is_some_and(|(_, exports)| *exports);
            if !exported {
                return Vec::new();
            }
        }
        let Some(place) = self.resolve(module, &reference.path, 0) else { return Vec::new() };
        let places = match place {
            Place::Module(target) if reference.kind == Kind::Glob => self.everything_of(target),
            _ => vec![place],
        };
        places
            .into_iter()
            .map(|(Place::Module(target) | Place::Item(target))| target)
            .filter(|&target| !(reference.kind == Kind::Export && self.is_below(target, module)))
            .map(|target| self.modules[target].file)
            .collect()
    }

    fn everything_of(&self, module: usize) -> Vec<Place> {
        let this = &self.modules[module];
        let own = (!this.defined.is_empty()).then_some(Place::Item(module));
        let exported = this.imported.values().filter(|(_, exports)| *exports);
        own.into_iter().chain(exported.filter_map(|(path, _)| self.resolve(module, path, 0))).collect()
    }

    fn is_below(&self, module: usize, ancestor: usize) -> bool {
        std::iter::successors(Some(module), |&position| self.modules[position].parent).any(|one| one == ancestor)
    }

    /// Follows a path from a module; `None` when it leads out of the crate or begins with a local name.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        let mut place = match first.as_str() {
            "crate" => Place::Module(ROOT),
            "self" => Place::Module(module),
            "super" => Place::Module(self.modules[module].parent?),
            name => self.look_up(module, name, depth)?,
        };
        for name in rest {
            let Place::Module(inside) = place else { break };
            place = match name.as_str() {
                "self" => place,
                "super" => Place::Module(self.modules[inside].parent?),
                // What is not found is made by a macro there, or exported from another crate.
                name => self.look_up(inside, name, depth).unwrap_or(Place::Item(inside)),
            };
        }
        Some(place)
    }

    fn look_up(&self, module: usize, name: &str, depth: usize) -> Option<Place> {
        let this = &self.modules[module];
        if let Some(child) = this.children.get(name) {
            return Some(Place::Module(*child));
        }
        if this.defined.contains(name) {
            return Some(Place::Item(module));
        }
        if depth == DEEPEST {
            return None;
        }
        if let Some((path, _)) = this.imported.get(name) {
            // `use name::x as name` would otherwise look for itself.
            return if path.first().is_some_and(|first| first == name) {
                None
            } else {
                self.resolve(module, path, depth + 1)
            };
        }
        this.globs.iter().find_map(|glob| match self.resolve(module, glob, depth + 1)? {
            Place::Module(target) if target != module => self.look_up(target, name, depth + 1),
            _ => None,
        })
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The imports of a crate with these files, as `from -> to`.
    fn imports(files: &[(&str, &str)]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = read(&directory.path().join(files[0].0)).unwrap();
        let name = |file: usize| found.files[file].strip_prefix(directory.path()).unwrap().display().to_string();
        found.imports.iter().map(|import| format!("{} -> {}", name(import.from), name(import.to))).collect()
    }

    /// The imports of `a.rs` in a crate where `b.rs` defines `Thing` and `c/mod.rs` exports it again.
    fn imports_of_a(source: &str) -> Vec<String> {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; pub use b::Thing as Known;"),
            ("a.rs", source),
            ("b.rs", "pub struct Thing; pub enum Choice { One } pub mod inline { pub struct Deep; }"),
            ("c/mod.rs", "pub mod d; pub use crate::b::Thing; pub use std::fmt::Debug;"),
            ("c/d.rs", "pub const LIMIT: u8 = 1; #[macro_export] macro_rules! log { () => {} }"),
        ];
        imports(&files).into_iter().filter_map(|edge| edge.strip_prefix("a.rs -> ").map(str::to_owned)).collect()
    }

    #[test]
    fn every_way_to_import_from_a_file_is_seen() {
        for source in [
            "use crate::b;",
            "use crate::b::Thing;",
            "use crate::b::{self};",
            "use crate::b::*;",
            "use super::b::{inline::Deep as D};",
            "use crate::b::Choice::*;",
            "use {crate::{b::Thing}, std::fmt};",
            "use crate::Known;",
            "use crate::c::Thing;",
            "use crate::c as e; fn f(_: e::Thing) {}",
            "fn f(_: crate::b::Thing) {}",
            "fn f() { use crate::b::Thing; }",
            "fn f() { let _ = crate::b::Thing; }",
            "fn f() { println!(\"{}\", Some([crate::b::Thing])); }",
            "mod inner { fn f(_: super::super::b::Thing) {} }",
            "impl Iterator for X { type Item = Vec<crate::b::Thing>; }",
        ] {
            let found = imports_of_a(source);
            assert!(found.contains(&"b.rs".to_owned()), "{source}: {found:?}");
        }
    }

    #[test]
    fn a_name_counts_for_the_file_that_defines_it() {
        assert_eq!(imports_of_a("use crate::c::Thing;"), ["b.rs"]);
        assert_eq!(imports_of_a("use crate::c::d::LIMIT;"), ["c/d.rs"]);
        assert_eq!(imports_of_a("fn f() { crate::log!(); }"), ["c/d.rs"]);
        assert_eq!(imports_of_a("use crate::c::Debug;"), ["c/mod.rs"]);
        assert_eq!(imports_of_a("use crate::c::*;"), ["b.rs"], "the module itself defines nothing");
    }

    #[test]
    fn texts_tests_other_crates_and_own_names_do_not_count() {
        for source in [
            "//! Like crate::b::Thing.\n/// See [`crate::b::Thing`].\nfn f() -> &'static str { \"crate::b::Thing\" }",
            "#[cfg(test)] mod tests { use crate::b::Thing; }",
            "#[cfg(test)] use crate::b::Thing;",
            "struct X; impl X { #[cfg(test)] fn f() { crate::b::Thing; } }",
            "use std::fmt::Debug; use ::b::Thing; fn f(b: u8) -> u8 { b }",
            "mod inner { pub struct Thing; } use inner::Thing; fn f(_: self::inner::Thing) {}",
        ] {
            assert_eq!(imports_of_a(source), [""; 0], "{source}");
        }
    }

    #[test]
    fn a_table_of_contents_counts_only_when_its_module_uses_the_names() {
        let below = ("a.rs", "use crate::Shared; pub struct A(Shared);");
        assert_eq!(imports(&[("lib.rs", "mod a; pub use a::A; pub struct Shared;"), below]), ["a.rs -> lib.rs"]);
        for used in ["pub struct Both(A);", "fn f() { A::new() }", "fn f() { vec![A] }"] {
            let root = format!("mod a; pub use a::A; pub struct Shared; {used}");
            assert_eq!(imports(&[("lib.rs", &root), below]), ["lib.rs -> a.rs", "a.rs -> lib.rs"], "{used}");
        }
    }

    #[test]
    fn a_missing_file_and_a_path_attribute_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("lib.rs");
        for (source, expected) in [("mod gone;", "no file for module gone"), ("#[path = \"x.rs\"] mod x;", "#[path]")] {
            std::fs::write(&root, source).unwrap();
            let error = read(&root).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
