//! Reading of source files.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use syn::{Attribute, Item};

/// Reads a text file; the error names it.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads a Rust file; the error names file and line.
pub fn parse(path: &Path) -> Result<syn::File> {
    let place = |error: &syn::Error| format!("{}:{}", path.display(), error.span().start().line);
    syn::parse_file(&read(path)?).map_err(|error| anyhow!("{}: not Rust: {error}", place(&error)))
}

/// Whether an item is compiled for tests only.
pub fn is_for_tests(item: &Item) -> bool {
    has_cfg_test(attributes(item))
}

/// Whether the attributes of something say `#[cfg(test)]` or `#[cfg(all(test, ..))]`.
pub fn has_cfg_test(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

/// The outer attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
