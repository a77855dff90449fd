//! The paths that code mentions, as they are written.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

use crate::source::{has_cfg_test, is_for_tests};

/// A path that code mentions.
#[derive(Debug)]
pub struct Reference {
    pub path: Vec<String>,
    pub line: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Imported, or written out where it is used.
    Path,
    /// `pub use` of one name.
    Export,
    /// Everything of a module.
    Glob,
    /// One word.
    Name,
}

/// All paths in the items, also in their bodies and in the arguments of macros.
pub fn references(items: &[Item]) -> Vec<Reference> {
    let mut finder = Finder::default();
    items.iter().for_each(|item| finder.visit_item(item));
    finder.found
}

/// One name that a `use` makes and the path behind it; a glob has no name.
pub struct Leaf {
    pub name: Option<String>,
    pub path: Vec<String>,
    pub line: usize,
}

/// The names that a `use` makes.
pub fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let mut found = Vec::new();
    add_leaves(tree, &[], &mut found);
    found
}

fn add_leaves(tree: &UseTree, before: &[String], found: &mut Vec<Leaf>) {
    let (ident, alias) = match tree {
        UseTree::Path(path) => {
            let path_to_here: Vec<String> = before.iter().cloned().chain([path.ident.to_string()]).collect();
            return add_leaves(&path.tree, &path_to_here, found);
        }
        UseTree::Group(group) => return group.items.iter().for_each(|tree| add_leaves(tree, before, found)),
        UseTree::Glob(glob) => {
            let line = glob.star_token.span.start().line;
            return found.push(Leaf { name: None, path: before.to_vec(), line });
        }
        UseTree::Name(name) => (&name.ident, None),
        UseTree::Rename(rename) => (&rename.ident, Some(&rename.rename)),
    };
    let mut path = before.to_vec();
    // `module::{self}` is the module.
    if ident != "self" || path.is_empty() {
        path.push(ident.to_string());
    }
    let name = alias.map(ToString::to_string).or_else(|| path.last().cloned());
    found.push(Leaf { name, path, line: ident.span().start().line });
}

/// Collects the paths that code mentions.
#[derive(Default)]
struct Finder {
    found: Vec<Reference>,
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !has_cfg_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let exports = !matches!(item.vis, Visibility::Inherited);
        for Leaf { name, path, line } in leaves(&item.tree) {
            let kind = match name {
                None => Kind::Glob,
                Some(_) if exports => Kind::Export,
                Some(_) => Kind::Path,
            };
            self.found.push(Reference { path, line, kind });
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| &segment.ident));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, code: &'ast syn::Macro) {
        self.visit_path(&code.path);
        self.find_paths(code.tokens.clone());
    }
}

impl Finder {
    /// Finds `one::two` in what a macro is given, where nobody knows what is code.
    fn find_paths(&mut self, tokens: TokenStream) {
        let mut path: Vec<Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens.into_iter().map(Some).chain([None]) {
            match token {
                Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && !path.is_empty() && colons < 2 => {
                    colons += 1
                }
                Some(TokenTree::Ident(ident)) if colons == 2 => {
                    path.push(ident);
                    colons = 0;
                }
                other => {
                    self.add(path.iter());
                    path.clear();
                    colons = 0;
                    match other {
                        Some(TokenTree::Ident(ident)) => path.push(ident),
                        Some(TokenTree::Group(group)) => self.find_paths(group.stream()),
                        _ => {}
                    }
                }
            }
        }
    }

    fn add<'a>(&mut self, path: impl Iterator<Item = &'a Ident>) {
        let path: Vec<&Ident> = path.collect();
        let Some(first) = path.first() else { return };
        let kind = if path.len() == 1 { Kind::Name } else { Kind::Path };
        let line = first.span().start().line;
        self.found.push(Reference { path: path.iter().map(ToString::to_string).collect(), line, kind });
    }
}
