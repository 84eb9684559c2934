//! The attribute `#[sandboxed_db]`, as a crate of its own because procedural macros must be one.
//!
//! Depend on `sandboxed-db` and use the attribute from there: its documentation lives on that re-export, where the
//! examples can be compiled, and the code it expands into calls `sandboxed_db::harness`.
//!
//! The files follow the way of the tokens: `args` reads what stands in the parentheses (`names` what is set, `values` to
//! what), `signature` and `attributes` the function below, `databases` says which parameter is made from which database, `matrix`
//! how many tests there are, `files` whether those that are named are there, and `expand` writes the tests around what
//! `call` has the harness do. What is wrong on the way is collected in `diagnostics`, where every message is worded. All work on
//! [`proc_macro2`], so their tests need no compiler.

#![forbid(unsafe_code)]

mod args;
mod attributes;
mod call;
mod databases;
mod diagnostics;
mod expand;
mod files;
mod matrix;
mod names;
mod signature;
mod values;

use proc_macro::TokenStream;

/// Turns a function that takes a database into a test that is given a fresh one.
///
/// See the documentation of this attribute in the package `sandboxed-db`, which re-exports it.
#[proc_macro_attribute]
pub fn sandboxed_db(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let package = files::package(std::env::var_os("CARGO_MANIFEST_DIR"));
    expand::sandboxed_db(arguments.into(), &item.into(), package.as_deref()).into()
}
